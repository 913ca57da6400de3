"""From a torch model to one self-contained ONNX file that is proven before it exists.

Trace, onnx.checker, parity in ONNX Runtime, metadata, and only then the file. A network that was never fitted
answers every image alike, so its own outputs cannot tell a right graph from a wrong one: a copy with fitted
statistics is exported by the same path and compared instead, and the two graphs must be wired alike.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime as ort
import torch
from onnx import helper
from torch import Tensor, nn

import dots_zoo
from dots_zoo.errors import DotsZooError
from dots_zoo.files import write_file
from dots_zoo.genotype import to_text
from dots_zoo.macs import count
from dots_zoo.network import CellNet
from dots_zoo.ops import Noise

from .graph import wiring
from .parity import (
    Parity,
    ParityError,
    check_parity,
    check_values,
    fitted_copy,
    is_unfitted,
    moves,
    probe_images,
    run_torch,
    spread,
)
from .trace import Exporter, trace

Task = Literal["classify", "features"]


@dataclass(frozen=True)
class Exported:
    """What was written and measured.

    shape: of the input, (batch, C, H, W), None for a dynamic batch. outputs: their names, in order.
    fitted_for_check: parity was measured on a copy with fitted statistics, as the weights were never fitted.
    metadata: what the file says of itself.
    """

    path: Path
    shape: tuple[int | None, int, int, int]
    outputs: tuple[str, ...]
    parity: Parity
    fitted_for_check: bool
    metadata: dict[str, str]


class _Graph(nn.Module):
    """The model as the exporters want it: one argument, named as the input; a tuple of outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out = self.model(image)
        return (out,) if isinstance(out, Tensor) else tuple(out)


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    task: Task = "classify",
    input_size: tuple[int, int, int] | None = None,
    dynamic_batch: bool = True,
    opset: int = 18,
    exporter: Exporter = "dynamo",
    seed: int = 0,
) -> Exported:
    """Export `model` in evaluation mode and float32, and leave the model itself as it is.

    task: 'classify' gives the output `logits` (N, classes); 'features', for timm's features_only models,
    one `feature_<stride>` (N, C, H, W) for every feature map. input_size: (C, H, W), None for the model's
    own. dynamic_batch: the batch is 1 otherwise. seed: of the test images. Raises ParityError where the
    graph is not proven and DotsZooError where the model cannot be exported; there is no file then.
    """
    name, size = _identify(model, input_size)
    names = output_names(model, task)
    costs = count(model, size)
    subject = _Graph(copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format)).eval()
    batches = [probe_images(n, size, seed + i) for i, n in enumerate((1, 3) if dynamic_batch else (1,) * 4)]
    image = probe_images(2 if dynamic_batch else 1, size, seed)  # not one of the batch sizes that are checked
    export = partial(
        trace, image=image, outputs=names, dynamic_batch=dynamic_batch, opset=opset, exporter=exporter
    )
    stand_in = _stand_in(subject, batches, size, seed, name)
    graph = export(subject)
    parity = _prove(graph, subject, batches, name, stand_in, export)
    metadata = {
        "model": name,
        "task": task,
        "params": str(costs.params),
        "macs": str(costs.macs),
        "weights_sha256": weights_sha256(model),
        "opset": str(opset),
        "exporter": exporter,
        "parity": json.dumps({**parity.as_dict(), "fitted_for_check": stand_in is not None}),
        **_describe(model),
    }
    shape = (None if dynamic_batch else 1, *size)
    return Exported(
        path=_write(graph, metadata, Path(path), name),
        shape=shape,
        outputs=names,
        parity=parity,
        fitted_for_check=stand_in is not None,
        metadata=metadata,
    )


def output_names(model: nn.Module, task: Task) -> tuple[str, ...]:
    """`logits`, or `feature_<stride>` for every map; a second map of one stride is `feature_<stride>_1`."""
    info: Any = getattr(model, "feature_info", None)
    is_features = callable(getattr(info, "reduction", None))  # a list in a classifier
    if task not in ("classify", "features"):
        raise DotsZooError(f"unknown task {task!r}: expected classify or features")
    if is_features != (task == "features"):
        want = "a features_only model" if task == "features" else "a model that classifies"
        raise DotsZooError(f"task {task} needs {want} of timm, got {type(model).__name__}")
    if not is_features:
        return ("logits",)
    strides = [int(stride) for stride in info.reduction()]
    again = [strides[:i].count(stride) for i, stride in enumerate(strides)]
    return tuple(f"feature_{s}_{n}" if n else f"feature_{s}" for s, n in zip(strides, again, strict=True))


def weights_sha256(model: nn.Module) -> str:
    """Of every entry of the state dict: name, type, shape and the bytes of its values."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _identify(model: nn.Module, input_size: tuple[int, int, int] | None) -> tuple[str, tuple[int, int, int]]:
    """Name and input size; refuses what cannot be exported."""
    config = getattr(model, "pretrained_cfg", {})
    name = config.get("architecture") or type(model).__name__
    size = input_size or config.get("input_size")
    if size is None:
        raise DotsZooError(f"{name} has no input size of its own: give one")
    for place, module in model.named_modules():
        if isinstance(module, Noise):
            raise DotsZooError(
                f"{name} contains the operation noise (at {place}), which is random by definition: no parity "
                "is possible, so it is not exported"
            )
    if any(p.is_meta for p in model.parameters()):
        raise DotsZooError(f"{name} is on the meta device and has no weights to export")
    return name, tuple(size)


def _stand_in(
    subject: nn.Module, batches: list[Tensor], size: tuple[int, int, int], seed: int, name: str
) -> nn.Module | None:
    """A fitted copy where the subject's own outputs cannot be judged, None where they can."""
    if not is_unfitted(subject):
        outputs = list(zip(*run_torch(subject, batches), strict=True))
        if not all(y.isfinite().all() for output in outputs for y in output):
            raise ParityError(f"{name}: its outputs are not finite numbers: the weights are broken")
        if all(moves(*spread(output)) for output in outputs):
            return None
    return fitted_copy(subject, size, seed)


def _prove(
    graph: onnx.ModelProto,
    subject: nn.Module,
    batches: list[Tensor],
    name: str,
    stand_in: nn.Module | None,
    export: Callable[[nn.Module], onnx.ModelProto],
) -> Parity:
    """Parity of the graph itself, or of the stand-in's, which must then be wired as the graph is."""
    if stand_in is None:
        return check_parity(graph.SerializeToString(), subject, batches, name)
    twin = export(stand_in)
    parity = check_parity(twin.SerializeToString(), stand_in, batches, name)
    if wiring(twin) != wiring(graph):
        raise ParityError(f"{name}: with fitted statistics the exporter wires the graph otherwise")
    check_values(graph.SerializeToString(), subject, batches, name)
    return parity


def _describe(model: nn.Module) -> dict[str, str]:
    """Cell, normalisation and versions, as far as the model has them."""
    config: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    genotypes = [to_text(module.genotype) for module in model.modules() if isinstance(module, CellNet)]
    return {
        **({"genotype": genotypes[0]} if genotypes else {}),
        **{key: json.dumps(list(config[key])) for key in ("mean", "std") if config.get(key)},
        "dots_zoo": dots_zoo.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }


def _write(graph: onnx.ModelProto, metadata: dict[str, str], path: Path, name: str) -> Path:
    helper.set_model_props(graph, metadata)
    content = graph.SerializeToString()
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"{name}: the exported graph is not valid ONNX: {error}") from error
    return write_file(path, content)
