"""Dispatch the command `dots-zoo`: one record a command; a command imports its modules when it runs.

This is the composition root: only in this folder does the core import search and export.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..runtime.errors import DotsZooError

EPILOG = """examples:
  dots-zoo list                                          the registered models, their cost and origin
  dots-zoo draw dots_imagenet -o cell.svg                a cell as a picture
  dots-zoo search dots --data digits --out runs/digits   find a cell
  dots-zoo explain hessian runs/digits                   analyse a completed search
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0: success, 1: a check failed, 2: an input that cannot be used."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in COMMANDS:
        _parser().parse_args(argv)  # prints the commands and exits
    command = COMMANDS[argv[0]]
    try:
        return command.run(argv[1:])
    except DotsZooError as error:
        print(f"dots-zoo: error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extras = _extras_for(module, command)
        if not extras:
            raise
        hint = f"pip install 'dots-zoo[{','.join(extras)}]'"
        print(f"dots-zoo: error: {module} is not installed: {hint}", file=sys.stderr)
        return DotsZooError.exit_code


@dataclass(frozen=True)
class Command:
    """A command of `dots-zoo`.

    Args:
        text: description for the help.
        run: function of the arguments after the command's name that returns the exit code.
        extras: extras that it needs; empty for the core alone.
    """

    text: str
    run: Callable[[Sequence[str]], int]
    extras: tuple[str, ...] = ()


def _extras_for(module: str, command: Command) -> Sequence[str]:
    """Return the extras that bring a module: the command's own if they do, () if none does.

    A module that no extra lists by name, such as numba's llvmlite, comes with the command's own extras if
    these are incomplete.
    """
    from .doctor import extras_with, missing

    bringing, own = extras_with(module), command.extras
    if set(own) & set(bringing) or (not bringing and any(map(missing, own))):
        return own
    return bringing[:1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dots-zoo",
        description="Cells from differentiable architecture search: found, trained, exported and measured.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=f"{command.text}: dots-zoo {name} --help", add_help=False)
    return parser


def _list(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "dots-zoo list",
        description="Print the registered models: parameters, MACs, input size, origin, a paper's accuracy.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="only names that match, for example 'dots_*'")
    parser.add_argument("--cells", action="store_true", help="print the bundled cells instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    from . import list_models as listing

    rows, line = (listing.cells, listing.cell_line) if args.cells else (listing.models, listing.model_line)
    if args.json:
        print(json.dumps(list(rows(args.pattern)), indent=1))
        return 0
    any_row = False
    for row in rows(args.pattern):
        print(line(row), flush=True)
        any_row = True
    if not any_row:
        raise DotsZooError(
            f"no {'cell' if args.cells else 'model'} matches {args.pattern!r}; 'dots-zoo list' prints all"
        )
    if not args.cells:
        print("MACs: convolutions and linear layers. 'paper' figures are the papers' own accuracies, in %.")
    return 0


def _draw(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "dots-zoo draw", description="Draw the normal and the reduction cell side by side."
    )
    parser.add_argument("genotype", help="a bundled cell, a genotype file, or a genotype as text")
    parser.add_argument("-o", "--output", type=Path, required=True, help="cell.svg or cell.png")
    args = parser.parse_args(argv)
    from ..drawing.draw import draw
    from ..genotype import load_genotype

    print(f"drawing: {draw(load_genotype(args.genotype), args.output)}")
    return 0


def _search(argv: Sequence[str]) -> int:
    from dots_zoo.search.run.command import main as search

    search(argv)
    return 0


def _explain(argv: Sequence[str]) -> int:
    from dots_zoo.search.explain.command import main as explain

    explain(argv)
    return 0


def _train(argv: Sequence[str]) -> int:
    from ..train.command import train_main

    train_main(argv)
    return 0


def _eval(argv: Sequence[str]) -> int:
    from ..train.command import eval_main

    eval_main(argv)
    return 0


def _predict(argv: Sequence[str]) -> int:
    from ..train.command import predict_main

    return predict_main(argv)


def _openmm(task: str, argv: Sequence[str]) -> int:
    from ..openmm.command import main as openmm

    return openmm(task, argv)


def _export(argv: Sequence[str]) -> int:
    from dots_zoo.export.convert.main import export_main

    code: int = export_main(argv)
    return code


def _inspect(argv: Sequence[str]) -> int:
    from dots_zoo.export.convert.main import inspect_main

    code: int = inspect_main(argv)
    return code


def _benchmark(name: str, argv: Sequence[str]) -> int:
    from dots_zoo.export.bench.command import main as benchmark

    code: int = benchmark([name, *argv])
    return code


def _tables(argv: Sequence[str]) -> int:
    from dots_zoo.export.tables.command import main as tables

    code: int = tables(argv)
    return code


def _demo(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "dots-zoo demo",
        description="Search, retrain, register, export and measure a cell on handwritten digits.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    from .demo import demo, summary

    print(summary(demo(args.out, args.seed), args.out))
    return 0


def _doctor(argv: Sequence[str]) -> int:
    argparse.ArgumentParser(
        "dots-zoo doctor", description="Report versions, providers and missing extras."
    ).parse_args(argv)
    from .doctor import diagnose

    lines, problems = diagnose()
    print("\n".join([*lines, *(f"PROBLEM: {problem}" for problem in problems)]))
    return 1 if problems else 0


COMMANDS: Mapping[str, Command] = {
    "list": Command("print the registered models, their cost and origin", _list),
    "draw": Command("draw the normal and the reduction cell side by side", _draw),
    "search": Command("search for a cell", _search, ("search",)),
    "explain": Command("analyse a completed search", _explain, ("search",)),
    "train": Command("train a network", _train, ("train",)),
    "eval": Command("evaluate a network", _eval, ("train",)),
    "predict": Command("name what is on images", _predict, ("train",)),
    "det": Command("detection with MMDetection", partial(_openmm, "det"), ("mm",)),
    "seg": Command("segmentation with MMSegmentation", partial(_openmm, "seg"), ("mm",)),
    "export": Command("export a model to ONNX and prove it against PyTorch", _export, ("export",)),
    "inspect": Command("print what an ONNX file holds", _inspect, ("export",)),
    "bench": Command("measure the latency of ONNX files", partial(_benchmark, "bench"), ("export",)),
    "report": Command("render measurements as a page", partial(_benchmark, "report"), ("export",)),
    "compare": Command("fail where a network became slower", partial(_benchmark, "compare"), ("export",)),
    "tables": Command("the papers' cost tables, with our counts and latency", _tables, ("export",)),
    "demo": Command("all of it once, on handwritten digits", _demo, ("search", "export")),
    "doctor": Command("report versions, providers and missing extras", _doctor),
}
