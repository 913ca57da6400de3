"""Export a network and inspect a file: the Python functions, and the commands over them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from dots_zoo.options.command_line import CommandLine
from dots_zoo.options.declaration import REQUIRED, Option
from dots_zoo.options.image_size import ImageSize, height_and_width
from dots_zoo.reference import resolve
from dots_zoo.runtime.atomic_write import check_output
from dots_zoo.runtime.errors import DotsZooError

from .inspect_file import Inspection, lines
from .inspect_file import inspect as inspect_file
from .mm_model import TOOLBOXES, build_network
from .network import Weights, build_model
from .options import ExportOptions, IOSpec, Lowering
from .to_onnx import Exported, export_onnx


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The options of an export; every field is an option and a keyword argument of `export`.

    Args:
        task: classes, the maps of the stages, a detector or a segmenter.
        macro: macro-architecture of a genotype; left out nb201 for a cell of that space, cifar where input is
            up to 64x64, else mobile.
        channels: width of the first cells, where not the network's own.
        layers: number of cells, where not the network's own.
        genotype: the cell, for cell_mobile, cell_cifar and cell_nb201, and for configs.
        checkpoint: weights to load: safetensors or a torch file, public names or ours.
        pretrained: load the weights that come with a timm name.
        num_classes: classes, where not the network's own.
        input: height and width, where not the network's own.
        dynamic: sizes that are left open.
        precision: of the graph. int8 rewrites networks of cells as fuse does, in any case.
        device: where an int8 graph will run.
        engine: what an int8 graph will run in.
        half_io: float16 input and outputs too, for fp16.
        images: folder of images that int8 is calibrated on.
        image_type: of a detector's or segmenter's input; uint8 is normalised in the graph.
        logits: a segmenter returns the scores of all classes, not the labels.
        fuse: rewrite networks of cells into fewer operations, exactly.
        opset: of ONNX.
        exporter: dynamo makes the smaller graph, torchscript is faster.
    """

    task: Literal["classify", "features", "detect", "segment"] = "classify"
    macro: str | None = None
    channels: int | None = None
    layers: int | None = None
    genotype: str | None = None
    checkpoint: str | Path | None = None
    pretrained: bool = False
    num_classes: int | None = None
    input: ImageSize | None = None
    dynamic: Sequence[Literal["batch", "height", "width", "none"]] = ("batch",)
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    engine: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    half_io: bool = False
    images: str | Path | None = None
    image_type: Literal["float32", "uint8"] = "float32"
    logits: bool = False
    fuse: bool = False
    opset: int = 18
    exporter: Literal["dynamo", "torchscript"] = "dynamo"


def export(network: str | nn.Module, out: str | Path, **options: Any) -> Exported:
    """Export a network to an ONNX file that is proven against PyTorch.

    Args:
        network: a module, or what names one: a timm name, ours or another, a genotype (bundled name, file or
            text), the folder of a training, whose weights it takes, or of a search; for detect and segment a
            config, its name or file.
        out: the file, m.onnx.
        options: the fields of ExportRequest.

    Raises DotsZooError for what does not fit, and ParityError for a graph that is not proven; there is no
    file then.
    """
    request = ExportRequest(**options)
    check_output(Path(out))
    target: Any = "tensorrt" if request.engine == "tensorrt" else request.device
    size = None if request.input is None else height_and_width(request.input)
    images = None if request.images is None else Path(request.images)
    lowering = Lowering(request.precision, target, request.half_io, images)
    model = _network(network, request, size)
    return export_onnx(
        model,
        out,
        ExportOptions(
            task=request.task,
            input_size=_with_channels(model, size),
            dynamic=open_axes(request.dynamic),
            lowering=lowering,
            io=IOSpec(request.image_type, request.logits),
            fuse=request.fuse,
            opset=request.opset,
            exporter=request.exporter,
        ),
    )


def _network(network: str | nn.Module, request: ExportRequest, size: tuple[int, int] | None) -> nn.Module:
    """Return the module to export."""
    weights = Weights(None if request.checkpoint is None else Path(request.checkpoint), request.pretrained)
    shape = {"macro": request.macro, "channels": request.channels, "layers": request.layers}
    others = {"pretrained": request.pretrained or None, "num_classes": request.num_classes, **shape}
    if isinstance(network, nn.Module):
        given = {"checkpoint": request.checkpoint, "genotype": request.genotype}
        _refuse_choices("a module", **given, **others)
        return network
    if request.task in TOOLBOXES:
        _refuse_choices(network, **others)
        return build_network(network, request.task, weights.checkpoint, request.genotype)
    reference = resolve(network, size=max(size) if size else None, **shape)  # type: ignore[arg-type]
    features = request.task == "features"
    return build_model(reference, features, weights, request.genotype, request.num_classes)


def _refuse_choices(name: str, **choices: Any) -> None:
    """Refuse the options that a config or a module has no use for, where they are given."""
    given = [f"--{choice.replace('_', '-')}" for choice, value in choices.items() if value is not None]
    if given:
        raise DotsZooError(f"{name}: {' and '.join(given)} builds a network, and this is one: leave it out")


def open_axes(dynamic: Sequence[str]) -> tuple[str, ...]:
    """Return the open axes. Raises DotsZooError for `none` beside others, and for one that stands twice."""
    names = tuple(dynamic)
    if len(set(names)) < len(names) or ("none" in names and len(names) > 1):
        raise DotsZooError(
            f"dynamic: expected none, or batch, height, width once each, got {' '.join(names)}"
        )
    return () if names == ("none",) else names


def _with_channels(model: nn.Module, size: tuple[int, int] | None) -> tuple[int, int, int] | None:
    """Return the size of an image with the channels that the model reads, (C, H, W)."""
    config: Any = getattr(model, "pretrained_cfg", {})
    return None if size is None else ((config.get("input_size") or (3,))[0], *size)


def inspect(file: str | Path, *, input: ImageSize | None = None) -> Inspection:
    """Return what an ONNX file says of itself, its operators and their MACs.

    Args:
        file: m.onnx.
        input: height and width, for a file that leaves them open.

    Raises DotsZooError for a file that is no whole ONNX model of images.
    """
    return inspect_file(Path(file), None if input is None else height_and_width(input))


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [export_line(), inspect_line()]


def export_line() -> CommandLine:
    """Return the options of `dots-zoo export`."""
    line = CommandLine(
        "export",
        "Export a network to ONNX and prove it against PyTorch.",
        "NETWORK -o FILE",
        [
            "export runs/net -o net.onnx",
            "export dots_cifar10_tiny --pretrained --exporter torchscript -o tiny.onnx",
            "export runs/net --precision int8 --images photos -o net_int8.onnx",
            "export retinanet_dots_imagenet_light_fpn_bccd --task detect --checkpoint runs/bccd/epoch_24.pth "
            "-o detector.onnx",
        ],
        main=("task", "pretrained", "precision", "images", "input"),
    )
    line.positional("network", "timm name, genotype, folder of a training or a search; a config to detect")
    line.add(Option("out", str, REQUIRED, "the file, m.onnx"))
    line.add_from(ExportRequest)
    return line


def export_main(argv: Sequence[str]) -> int:
    """Export as `argv` says, and print what was measured."""
    values = export_line().parse(argv)
    network = values.pop("network")
    done = export(network, **values)
    size = done.path.stat().st_size / 1e6
    print("\n".join([*export_lines(network, done), f"written: {done.path} ({size:.1f} MB)"]))
    print(f"next: dots-zoo bench {done.path} -o bench.json")
    return 0


def inspect_line() -> CommandLine:
    """Return the options of `dots-zoo inspect`."""
    line = CommandLine(
        "inspect",
        "Print what an ONNX file says of itself, its operators and their MACs.",
        "FILE",
        ["inspect m.onnx", "inspect m.onnx --input 224x224 --json"],
    )
    line.positional("file", "m.onnx")
    line.add_from(inspect)
    line.add(Option("json", bool, False, "print JSON and nothing else"))
    return line


def inspect_main(argv: Sequence[str]) -> int:
    """Print what an ONNX file holds, as `argv` says."""
    values = inspect_line().parse(argv)
    inspection = inspect(values["file"], input=values["input"])
    print(json.dumps(asdict(inspection), indent=1) if values["json"] else "\n".join(lines(inspection)))
    return 0


def export_lines(name: str, done: Exported) -> list[str]:
    """Return the lines that tell what was exported and how far it is from torch."""
    axes = zip(done.shape, ("batch", "channels", "height", "width"), strict=True)
    shape = ", ".join(axis if extent is None else str(extent) for extent, axis in axes)
    parity, [first, *_] = done.parity, done.parity.outputs
    sizes = dict.fromkeys(f"{height}x{width}" for height, width in parity.sizes)
    agreement = "" if first.agreement is None else f", top-1 agreement {first.agreement:.1%}"
    lines = [
        f"{name}: image ({shape}) -> {', '.join(done.outputs)}; {int(done.metadata['macs']):,} MACs",
        f"parity: ONNX Runtime differs by {parity.error:.1e} of the movement of the outputs"
        f"{' on average' if parity.judged == 'mean' else ''}, "
        f"{parity.tolerance:.0e} allowed, batches {', '.join(map(str, parity.batches))}, "
        f"sizes {', '.join(sizes)}",
        f"{first.name}: mean difference {first.mean_difference:.1e}, cosine {first.cosine:.6f}{agreement}",
    ]
    if done.answers:
        lines.append("whole graph: " + ", ".join(f"{k} {v:.4g}" for k, v in done.answers.items()))
    if "float_layers" in done.metadata:
        left = json.loads(done.metadata["float_layers"])
        lines.append(
            f"int8: calibrated on {done.metadata['calibration_images']} images, float: {left or 'none'}"
        )
    if done.fitted_for_check:
        lines.append("that is of a copy with fitted statistics: the weights of this model were never fitted")
    return lines
