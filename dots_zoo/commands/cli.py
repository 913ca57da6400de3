"""The command `dots-zoo`: one function a command, each imports what it needs when it runs.

This is the composition root: only here and in demo.py does the core reach for search and export.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runtime.errors import DotsZooError

EPILOG = """examples:
  dots-zoo list                                          the registered models, their cost and origin
  dots-zoo draw dots_imagenet -o cell.svg                a cell as a picture
  dots-zoo search dots --data digits --out runs/digits   find a cell
  dots-zoo explain hessian runs/digits                   look at a search that has ended
  dots-zoo train runs/digits/genotype.json --preset small_cpu --data digits --out runs/net
                                                         train it; timm loads local-dir:runs/net
  dots-zoo eval runs/net --data digits                   what its weights name of the test images
  dots-zoo det check retinanet_dots_imagenet_fpn_1x_coco what a detector costs; train, test, predict
  dots-zoo seg check bisenetv1_dots_imagenet_camvid      the same for segmentation
  dots-zoo export runs/net -o m.onnx                     a checked ONNX file of it, or of any timm name
  dots-zoo inspect m.onnx                                what it says of itself, operators, MACs
  dots-zoo bench m.onnx --provider cpu --batch 1 8 -o bench.json
  dots-zoo report bench.json -o report.html
  dots-zoo tables --out runs/tables                      the papers' cost tables beside our counts and latency
  dots-zoo demo --out runs/demo                          all of it once, in minutes, on real images
  dots-zoo doctor                                        what is installed and what is missing"""

# The commands of export/bench/command.py.
BENCHMARKS = {
    "bench": "measure the latency of ONNX files",
    "report": "render measurements as a page",
    "compare": "fail where a network became slower",
}
TABLES = "the papers' cost tables, with our counts and latency"

# The extras that a command runs with; list, draw and doctor are the core's.
EXTRAS = {
    "search": ("search",),
    "explain": ("search",),
    "train": ("train",),
    "eval": ("train",),
    "det": ("mm",),
    "seg": ("mm",),
    "export": ("export",),
    "inspect": ("export",),
    **dict.fromkeys(BENCHMARKS, ("export",)),
    "demo": ("search", "export"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0: it did what was asked, 1: a check failed, 2: an input that cannot be used."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["search"]:  # its options come from the methods' configurations
            from dots_zoo.search.__main__ import main as search

            search(argv[1:])
            return 0
        if argv[:1] == ["explain"]:  # theirs from the analyses'
            from dots_zoo.search.explain.command import main as explain

            explain(argv[1:])
            return 0
        if argv[:1] in (["train"], ["eval"]):  # theirs from the recipe and the data set
            from ..train.command import eval_main, train_main

            (train_main if argv[0] == "train" else eval_main)(argv[1:])
            return 0
        if argv[:1] and argv[0] in BENCHMARKS:
            from dots_zoo.export.bench.command import main as benchmark

            code: int = benchmark(argv)
            return code
        if argv[:1] == ["tables"]:
            from dots_zoo.export.tables.command import main as tables

            code = tables(argv[1:])
            return code
        if argv[:1] in (["det"], ["seg"]):
            from ..openmm.command import main as openmm

            return openmm(argv[0], argv[1:])
        args = _parser().parse_args(argv)
        result: int = args.run(args)
        return result
    except DotsZooError as error:
        print(f"dots-zoo: error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extras = _extras_for(module, argv[0])
        if not extras:
            raise
        hint = f"pip install 'dots-zoo[{','.join(extras)}]'"
        print(f"dots-zoo: error: {module} is not installed: {hint}", file=sys.stderr)
        return DotsZooError.exit_code


def _extras_for(module: str, command: str) -> Sequence[str]:
    """Return the extras that bring a module: the command's own if they do, () if none does.

    What nobody asks for by name, such as numba's llvmlite, comes with a command's own extras if these are
    incomplete.
    """
    from .doctor import extras_with, missing

    bringing, own = extras_with(module), EXTRAS.get(command, ())
    if set(own) & set(bringing) or (not bringing and any(map(missing, own))):
        return own
    return bringing[:1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dots-zoo", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    p = command(
        "list",
        _list,
        "print the registered models: parameters, MACs, input size, origin, the paper's accuracy",
    )
    p.add_argument("pattern", nargs="?", default="*", help="only names that match, for example 'dots_*'")
    p.add_argument("--cells", action="store_true", help="print the bundled cells instead")
    p.add_argument("--json", action="store_true", help="print JSON")

    p = command("draw", _draw, "draw the normal and the reduction cell side by side")
    p.add_argument("genotype", help="a bundled cell, a genotype file, or a genotype as text")
    p.add_argument("-o", "--output", type=Path, required=True, help="cell.svg or cell.png")

    commands.add_parser("search", help="search for a cell: dots-zoo search dots --help", add_help=False)
    commands.add_parser("explain", help="look at a search: dots-zoo explain --help", add_help=False)
    commands.add_parser("train", help="train a network: dots-zoo train --help", add_help=False)
    commands.add_parser("eval", help="evaluate a network: dots-zoo eval --help", add_help=False)

    commands.add_parser("det", help="detection: dots-zoo det --help", add_help=False)
    commands.add_parser("seg", help="segmentation: dots-zoo seg --help", add_help=False)

    p = command("export", _export, "export a model to ONNX and prove it against PyTorch")
    p.add_argument(
        "model",
        help="a timm name, ours or another, a genotype (bundled name, file or text), or the folder of a "
        "training, whose weights it takes; for detect and segment a config, its name or file",
    )
    p.add_argument("-o", "--output", type=Path, required=True, help="m.onnx")
    p.add_argument(
        "--macro",
        help="macro-architecture of a genotype: mobile, cifar, nb201; left out nb201 for a cell of that "
        "space, cifar where --input is up to 64x64, else mobile",
    )
    p.add_argument("--channels", type=int, help="width of the first cells, where not the model's own")
    p.add_argument("--layers", type=int, help="number of cells, where not the model's own")
    p.add_argument("--task", default="classify", help="classify, features, detect or segment")
    p.add_argument("--genotype", help="the cell, for cell_mobile, cell_cifar and cell_nb201, and for configs")
    p.add_argument(
        "--checkpoint", type=Path, help="weights to load: safetensors or a torch file, public names or ours"
    )
    p.add_argument("--pretrained", action="store_true", help="load the weights that come with a timm name")
    p.add_argument("--num-classes", type=int, help="classes, where not the model's default")
    p.add_argument("--input", metavar="HxW", help="input size, where not the model's own")
    p.add_argument(
        "--dynamic", metavar="AXES", default="batch", help="sizes left open: batch,height,width, or none"
    )
    p.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="int8: our networks go through the exact rewrites of --fuse that int8 needs, in any case",
    )
    p.add_argument("--half-io", action="store_true", help="float16 input and outputs too, for fp16")
    p.add_argument("--calibration", type=Path, metavar="FOLDER", help="images that int8 is calibrated on")
    p.add_argument(
        "--for", dest="target", choices=("cpu", "cuda", "tensorrt"), default="cpu", help="where int8 will run"
    )
    p.add_argument(
        "--image", default="float32", help="detect, segment: float32, or uint8 normalised in the graph"
    )
    p.add_argument("--logits", action="store_true", help="segment: scores of all classes, not the labels")
    p.add_argument(
        "--fuse",
        action="store_true",
        help="rewrite our networks into fewer operations, exactly; int8 always does",
    )
    p.add_argument("--opset", type=int, default=18)
    p.add_argument("--exporter", choices=("dynamo", "torchscript"), default="dynamo")

    p = command("inspect", _inspect, "print what an ONNX file says of itself, its operators and their MACs")
    p.add_argument("file", type=Path, metavar="m.onnx")
    p.add_argument("--input", metavar="HxW", help="image size, for a file that leaves it open")
    p.add_argument("--json", action="store_true", help="print JSON")

    for name, text in {**BENCHMARKS, "tables": TABLES}.items():
        commands.add_parser(name, help=f"{text}: dots-zoo {name} --help", add_help=False)

    p = command("demo", _demo, "search, retrain, register, export and measure a cell on handwritten digits")
    p.add_argument("--out", type=Path, default=Path("runs/demo"))
    p.add_argument("--seed", type=int, default=0)

    command("doctor", _doctor, "report versions, providers and missing extras")
    return parser


def _list(args: argparse.Namespace) -> int:
    from . import list_models as listing

    rows, line = (listing.cells, listing.cell_line) if args.cells else (listing.models, listing.model_line)
    if args.json:
        print(json.dumps(list(rows(args.pattern)), indent=1))
        return 0
    found = False
    for row in rows(args.pattern):
        print(line(row), flush=True)
        found = True
    if not found:
        raise DotsZooError(
            f"no {'cell' if args.cells else 'model'} matches {args.pattern!r}; 'dots-zoo list' prints all"
        )
    if not args.cells:
        print("MACs: convolutions and linear layers. 'paper' figures are the papers' own accuracies, in %.")
    return 0


def _draw(args: argparse.Namespace) -> int:
    from ..drawing.draw import draw
    from ..genotype import load_genotype

    print(f"drawing: {draw(load_genotype(args.genotype), args.output)}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from dots_zoo.export.convert.command import export_model, parse_dynamic, parse_size

    export_model(
        args.model,
        args.output,
        task=args.task,
        macro=args.macro,
        channels=args.channels,
        layers=args.layers,
        genotype=args.genotype,
        checkpoint=args.checkpoint,
        pretrained=args.pretrained,
        num_classes=args.num_classes,
        input_size=parse_size(args.input) if args.input else None,
        dynamic=parse_dynamic(args.dynamic),
        precision=args.precision,
        target=args.target,
        half_io=args.half_io,
        calibration=args.calibration,
        image=args.image,
        logits=args.logits,
        fuse=args.fuse,
        opset=args.opset,
        exporter=args.exporter,
    )
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from dots_zoo.export.convert.command import inspect_model, parse_size

    inspect_model(args.file, parse_size(args.input) if args.input else None, args.json)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import diagnose

    lines, problems = diagnose()
    print("\n".join([*lines, *(f"PROBLEM: {problem}" for problem in problems)]))
    return 1 if problems else 0


def _demo(args: argparse.Namespace) -> int:
    from .demo import demo, summary

    print(summary(demo(args.out, args.seed), args.out))
    return 0
