"""The command lines of `dots-zoo export` and `dots-zoo inspect`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dots_zoo.options.image_size import image_size
from dots_zoo.runtime.errors import DotsZooError

from .command import export_model, inspect_model


def export_main(argv: Sequence[str]) -> int:
    """Export a network as `argv` says."""
    args = _export_parser().parse_args(argv)
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
        input_size=image_size(args.input) if args.input else None,
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


def inspect_main(argv: Sequence[str]) -> int:
    """Print what an ONNX file holds, as `argv` says."""
    parser = argparse.ArgumentParser(
        "dots-zoo inspect",
        description="Print what an ONNX file says of itself, its operators and their MACs.",
    )
    parser.add_argument("file", type=Path, metavar="m.onnx")
    parser.add_argument("--input", metavar="HxW", help="image size, for a file that leaves it open")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    inspect_model(args.file, image_size(args.input) if args.input else None, args.json)
    return 0


def _export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dots-zoo export", description="Export a model to ONNX and prove it against PyTorch."
    )
    _add_network(parser)
    _add_file(parser)
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which network is exported."""
    parser.add_argument(
        "model",
        help="a timm name, ours or another, a genotype (bundled name, file or text), or the folder of a "
        "training, whose weights it takes; for detect and segment a config, its name or file",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="m.onnx")
    parser.add_argument(
        "--macro",
        help="macro-architecture of a genotype: mobile, cifar, nb201; left out nb201 for a cell of that "
        "space, cifar where --input is up to 64x64, else mobile",
    )
    parser.add_argument("--channels", type=int, help="width of the first cells, where not the model's own")
    parser.add_argument("--layers", type=int, help="number of cells, where not the model's own")
    parser.add_argument("--task", default="classify", help="classify, features, detect or segment")
    parser.add_argument(
        "--genotype", help="the cell, for cell_mobile, cell_cifar and cell_nb201, and for configs"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="weights to load: safetensors or a torch file, public names or ours"
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="load the weights that come with a timm name"
    )
    parser.add_argument("--num-classes", type=int, help="classes, where not the model's default")
    parser.add_argument("--input", metavar="HxW", help="input size, where not the model's own")


def _add_file(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how it is written."""
    parser.add_argument(
        "--dynamic", metavar="AXES", default="batch", help="sizes left open: batch,height,width, or none"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="int8: our networks go through the exact rewrites of --fuse that int8 needs, in any case",
    )
    parser.add_argument("--half-io", action="store_true", help="float16 input and outputs too, for fp16")
    parser.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="images that int8 is calibrated on"
    )
    parser.add_argument(
        "--for", dest="target", choices=("cpu", "cuda", "tensorrt"), default="cpu", help="where int8 will run"
    )
    parser.add_argument(
        "--image", default="float32", help="detect, segment: float32, or uint8 normalised in the graph"
    )
    parser.add_argument(
        "--logits", action="store_true", help="segment: scores of all classes, not the labels"
    )
    parser.add_argument(
        "--fuse",
        action="store_true",
        help="rewrite our networks into fewer operations, exactly; int8 always does",
    )
    parser.add_argument("--opset", type=int, default=18)
    parser.add_argument("--exporter", choices=("dynamo", "torchscript"), default="dynamo")


def parse_dynamic(text: str) -> tuple[str, ...]:
    """Return 'batch,height,width' as its names, 'none' as (). Raises DotsZooError for anything else."""
    names = () if text == "none" else tuple(text.split(","))
    if len(set(names)) < len(names) or set(names) - {"batch", "height", "width"}:
        raise DotsZooError(f"dynamic axes: expected none or some of batch,height,width, got {text!r}")
    return names
