"""The commands `export` and `inspect`, as `dots-zoo` calls them; nothing else here prints."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from safetensors import SafetensorError
from timm.models import load_checkpoint
from torch import nn

import dots_zoo
from dots_zoo.network import CellNet
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
    """Build a timm model, or a config's for the tasks detect and segment, load its weights, export it, and
    print what was measured.

    genotype: for the names that build any cell, and for configs. checkpoint: safetensors or a torch file,
    loaded strictly. pretrained: the weights of timm. input_size: (height, width), None for the model's own.
    image and logits: see ends.Surface. The others as for to_onnx.export_onnx and its Lowering. Raises
    DotsZooError for what cannot be built, loaded or exported, and ParityError for an unproven graph.
    """
    _require("onnx", "onnxruntime", "onnxscript")
    from .mm_model import TOOLBOXES, build_network
    from .pre_post import Surface
    from .to_onnx import Lowering, export_onnx

    check_output(output)
    lowering = Lowering(precision, target, half_io, calibration)  # type: ignore[arg-type]
    surface = Surface(image, logits)  # type: ignore[arg-type]
    if task in TOOLBOXES:
        if pretrained or num_classes is not None:
            raise DotsZooError(
                f"{name}: --pretrained and --num-classes are for timm's models: leave them out"
            )
        model = build_network(name, task, checkpoint, genotype)
    else:
        kwargs = {"genotype": genotype, "num_classes": num_classes}
        given = {k: v for k, v in kwargs.items() if v is not None}
        model = build_model(name, task == "features", checkpoint, pretrained, given)
    config: Any = model.pretrained_cfg
    channels = (config["input_size"] or (3,))[0]
    size = None if input_size is None else (channels, *input_size)
    done = export_onnx(
        model,
        output,
        task=task,
        input_size=size,
        dynamic=dynamic,
        lowering=lowering,
        surface=surface,
        fuse=fuse,
        opset=opset,
        exporter=exporter,
    )
    print("\n".join([*_lines(name, done), f"written: {done.path} ({done.path.stat().st_size / 1e6:.1f} MB)"]))
    return done


def inspect_model(path: Path, input_size: tuple[int, int] | None = None, as_json: bool = False) -> None:
    """Print what a file says of itself and what is in it. Raises DotsZooError as inspect does."""
    _require("onnx", "onnxruntime")
    from .inspect_file import inspect, lines

    found = inspect(path, input_size)
    print(json.dumps(asdict(found), indent=1) if as_json else "\n".join(lines(found)))


def _lines(name: str, done: "Exported") -> list[str]:
    """What was exported and how far it is from torch."""
    axes = zip(done.shape, ("batch", "channels", "height", "width"), strict=True)
    shape = ", ".join(axis if number is None else str(number) for number, axis in axes)
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


def parse_dynamic(text: str) -> tuple[str, ...]:
    """'batch,height,width' -> the names; 'none' -> ()."""
    names = () if text == "none" else tuple(text.split(","))
    if len(set(names)) < len(names) or set(names) - {"batch", "height", "width"}:
        raise DotsZooError(f"dynamic axes: expected none or some of batch,height,width, got {text!r}")
    return names


def parse_size(text: str) -> tuple[int, int]:
    """'224x320' -> (224, 320), height first."""
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise DotsZooError(f"input size: expected HEIGHTxWIDTH, such as 224x320, got {text!r}")
    height, width = text.split("x")
    return int(height), int(width)


def build_model(
    name: str, features: bool, checkpoint: Path | None, pretrained: bool, kwargs: dict[str, Any]
) -> nn.Module:
    """A timm model with its weights.

    Raises DotsZooError for a name that timm does not know and for weights that do not fit.
    """
    if checkpoint is not None and pretrained:
        raise DotsZooError(f"{name}: --checkpoint and --pretrained both give weights: choose one")
    if not timm.is_model(name.partition(".")[0]):
        raise DotsZooError(
            f"unknown model {name!r}: dots-zoo list prints ours, timm.list_models() all others"
        )
    if checkpoint is None:
        return _create(name, pretrained=pretrained, features_only=features, **kwargs)
    model = _create(name, **kwargs)
    _load(model, checkpoint)
    if not features:
        return model
    # timm does not load strictly into a features_only model: it gets what has been loaded strictly.
    weights = {"state_dict": model.state_dict()}
    return _create(name, pretrained=True, pretrained_cfg_overlay=weights, features_only=True, **kwargs)


def _create(name: str, **kwargs: Any) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, **kwargs)
    except (RuntimeError, TypeError, ValueError, AssertionError, OSError) as error:
        raise DotsZooError(f"{name}: timm cannot build this model: {error}") from error
    return model


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
