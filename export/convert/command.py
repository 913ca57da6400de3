"""Export a network and inspect a file, as Python functions; nothing else in this folder prints."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from timm.models import load_checkpoint
from torch import nn

import dots_zoo
from dots_zoo.network import CellNet
from dots_zoo.reference import Reference, create, resolve
from dots_zoo.runtime.atomic_write import check_output
from dots_zoo.runtime.errors import DotsZooError

if TYPE_CHECKING:  # at run time only once the extra is known to be there
    from .to_onnx import Exported
    from .trace import Exporter


def export_model(
    name: str,
    output: Path,
    *,
    task: str = "classify",
    macro: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    genotype: str | None = None,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    input_size: tuple[int, int] | None = None,
    dynamic: Sequence[str] = ("batch",),
    precision: str = "fp32",
    target: str = "cpu",
    half_io: bool = False,
    calibration: Path | None = None,
    image: str = "float32",
    logits: bool = False,
    fuse: bool = False,
    opset: int = 18,
    exporter: "Exporter" = "dynamo",
) -> "Exported":
    """Build a network, or a config's for detect and segment, export it, and print what was measured.

    name, macro, channels, layers: see dots_zoo.reference.resolve; a training brings its weights. genotype:
    for the names that build any cell, and for configs. checkpoint: safetensors or a torch file. pretrained:
    the weights that come with a timm name. input_size: (height, width), None for the network's own. The
    others: see export.convert.options. Raises DotsZooError, and ParityError for an unproven graph.
    """
    _require("onnx", "onnxruntime", "onnxscript")
    from .mm_model import TOOLBOXES, build_network
    from .options import ExportOptions, IOSpec, Lowering
    from .to_onnx import export_onnx

    check_output(output)
    lowering = Lowering(precision, target, half_io, calibration)  # type: ignore[arg-type]
    io = IOSpec(image, logits)  # type: ignore[arg-type]
    shape = {"macro": macro, "channels": channels, "layers": layers}
    if task in TOOLBOXES:
        _refuse_for_configs(name, pretrained=pretrained or None, num_classes=num_classes, **shape)
        model = build_network(name, task, checkpoint, genotype)
    else:
        reference = resolve(name, size=max(input_size) if input_size else None, **shape)  # type: ignore[arg-type]
        name, weights = reference.name, Weights(checkpoint, pretrained)
        model = build_model(reference, task == "features", weights, genotype, num_classes)
    options = ExportOptions(
        task=task,
        input_size=_with_channels(model, input_size),
        dynamic=dynamic,
        lowering=lowering,
        io=io,
        fuse=fuse,
        opset=opset,
        exporter=exporter,
    )
    done = export_onnx(model, output, options)
    print("\n".join([*_lines(name, done), f"written: {done.path} ({done.path.stat().st_size / 1e6:.1f} MB)"]))
    return done


def _refuse_for_configs(name: str, **options: Any) -> None:
    """Refuse the options that a config has no use for, where they are given."""
    if any(value is not None for value in options.values()):
        raise DotsZooError(
            f"{name}: --pretrained, --num-classes, --macro, --channels and --layers are not for configs: "
            "leave them out"
        )


def _with_channels(model: nn.Module, size: tuple[int, int] | None) -> tuple[int, int, int] | None:
    """Return the size of an image with the channels that the model reads, (C, H, W)."""
    config: Any = model.pretrained_cfg
    return None if size is None else ((config["input_size"] or (3,))[0], *size)


def inspect_model(path: Path, input_size: tuple[int, int] | None = None, as_json: bool = False) -> None:
    """Print the metadata, the costs and the operators of a file. Raises DotsZooError as inspect does."""
    _require("onnx", "onnxruntime")
    from .inspect_file import inspect, lines

    inspection = inspect(path, input_size)
    print(json.dumps(asdict(inspection), indent=1) if as_json else "\n".join(lines(inspection)))


def _lines(name: str, done: "Exported") -> list[str]:
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


@dataclass(frozen=True)
class Weights:
    """The source of weights beside the folder of a training: a file, or timm's for the name."""

    checkpoint: Path | None = None
    pretrained: bool = False


OWN = Weights()


def build_model(
    reference: Reference,
    features: bool,
    weights: Weights = OWN,
    genotype: str | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Return a network, or its features_only form, with the weights of its training, of a file, or its own.

    Raises DotsZooError for what does not fit the network, and for weights that do not fit.
    """
    _refuse_misfits(reference, weights, genotype, num_classes)
    options = {"genotype": genotype, "num_classes": num_classes}
    given = {name: value for name, value in options.items() if value is not None}
    trained, checkpoint = reference.folder is not None, weights.checkpoint
    if checkpoint is None and not (trained and features):
        loaded = trained or weights.pretrained
        model: nn.Module = create(reference, weights=loaded, features_only=features, **given)
        return model
    model = create(reference, weights=trained, **given)
    if checkpoint is not None:
        _load(model, checkpoint)
    if not features:
        return model
    # timm does not load strictly into a features_only model: it gets what has been loaded strictly.
    overlay = {**_described(model), "state_dict": model.state_dict()}
    network: nn.Module = create(
        replace(reference, folder=None, cell=False),
        weights=True,
        pretrained_cfg_overlay=overlay,
        features_only=True,
        **given,
    )
    return network


def _refuse_misfits(
    reference: Reference, weights: Weights, genotype: str | None, num_classes: int | None
) -> None:
    name, trained = reference.name, reference.folder is not None
    if weights.checkpoint is not None and weights.pretrained:
        raise DotsZooError(f"{name}: --checkpoint and --pretrained both give weights: choose one")
    if weights.checkpoint is not None and trained:
        raise DotsZooError(f"{name}: --checkpoint and the folder both give weights: leave --checkpoint out")
    if genotype is not None and (reference.cell or trained):
        raise DotsZooError(f"{name}: it has its cell, and --genotype gives another: leave --genotype out")
    classes = reference.arguments.get("num_classes", num_classes)
    if trained and num_classes not in (None, classes):
        raise DotsZooError(
            f"{name}: it was trained to name {classes} classes, and --num-classes asks for {num_classes}: "
            "leave it out"
        )


def _described(model: nn.Module) -> dict[str, Any]:
    """Return what timm's cfg says of the images of a network."""
    config: Any = model.pretrained_cfg
    return {key: config[key] for key in ("input_size", "mean", "std", "num_classes") if config.get(key)}


def _load(model: nn.Module, path: Path) -> None:
    if isinstance(model, CellNet):
        dots_zoo.load_public_checkpoint(model, path)
        return
    if not path.is_file():
        raise DotsZooError(f"{path}: no such checkpoint file")
    try:
        load_checkpoint(model, str(path), strict=True)
    except (RuntimeError, SafetensorError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())  # torch lists every key
        raise DotsZooError(f"{path}: cannot be loaded into {type(model).__name__}: {reason:.300}") from error


def _require(*modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise DotsZooError(f'{" and ".join(missing)} not installed: pip install "dots-zoo[export]"')
