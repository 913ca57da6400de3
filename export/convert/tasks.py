"""The tasks of a graph: each wraps a torch model and names its input and outputs.

The input is always `image`. A task is a function from a model to a Wrapped, and what the file has around the
network, if anything; a new one is a function here or in a module of its own, and its name in TASKS.
"""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from dots_zoo.fuse.fuse import fuse
from dots_zoo.network import CellNet
from dots_zoo.runtime.errors import DotsZooError

from .detect import Detector
from .options import ExportOptions, IOSpec
from .pre_post import TaskAdapter, Wrapped, classes
from .retinanet_decode import detect_maps
from .segment import Segmenter, segment_logits


class _Graph(nn.Module):
    """A model as the exporters take it: one argument, named as the input; a tuple of outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out = self.model(image)
        return (out,) if isinstance(out, Tensor) else tuple(out)


def classify(model: nn.Module) -> Wrapped:
    """Wrap a classifier: `logits` (N, classes). The file names the classes where timm's cfg does."""
    if _is_features(model):
        raise DotsZooError(f"task classify needs a model that classifies of timm, got {type(model).__name__}")
    return Wrapped(_Graph(model), ("logits",), classes(model, getattr(model, "num_classes", 0)))


def features(model: nn.Module) -> Wrapped:
    """Wrap a backbone: a `feature_<stride>` (N, C, H, W) a map; a second of one stride ends in `_1`."""
    if not _is_features(model):
        raise DotsZooError(f"task features needs a features_only model of timm, got {type(model).__name__}")
    info: Any = model.feature_info
    strides = [int(stride) for stride in info.reduction()]
    again = [strides[:i].count(stride) for i, stride in enumerate(strides)]
    names = tuple(f"feature_{s}_{n}" if n else f"feature_{s}" for s, n in zip(strides, again, strict=True))
    return Wrapped(_Graph(model), names, _as_json({"channels": list(info.channels()), "strides": strides}))


TASKS: dict[str, Callable[[nn.Module], Wrapped]] = {
    "classify": classify,
    "features": features,
    "detect": detect_maps,
    "segment": segment_logits,
}
ADAPTERS: dict[str, Callable[[IOSpec], TaskAdapter]] = {"detect": Detector, "segment": Segmenter}


def wrap(model: nn.Module, task: str) -> Wrapped:
    """Wrap a model for a task. Raises DotsZooError for an unknown task and a model that does not suit it."""
    if task not in TASKS:
        raise DotsZooError(f"unknown task {task!r}: expected {', '.join(TASKS)}")
    return TASKS[task](model)


def adapter_of(options: ExportOptions) -> TaskAdapter | None:
    """Return what the file has around the network, None for tasks that are the network alone.

    Raises DotsZooError for an input or output that the task does not have.
    """
    task, io = options.task, options.io
    if io.logits and task != "segment":
        raise DotsZooError(f"logits in place of labels are for task segment, got {task}")
    if task not in ADAPTERS:
        if io.image != "float32":
            raise DotsZooError(f"{io.image} images are for the tasks {' and '.join(ADAPTERS)}, got {task}")
        return None
    if options.lowering.half_io:
        raise DotsZooError(f"float16 inputs and outputs are for the tasks classify and features, got {task}")
    return ADAPTERS[task](io)


def fused(model: nn.Module, task: str, rewrites: Sequence[str]) -> nn.Module:
    """Return a copy with fewer operations, in the network or in the backbone of a detector or segmenter."""
    if task not in ADAPTERS:
        return fuse(model, rewrites)
    rewritten = copy.deepcopy(model)
    bodies = _bodies(rewritten)
    if not bodies:
        raise DotsZooError(
            f"--fuse is for the networks of dots_zoo, and this {type(model).__name__} has no DotsBackbone"
        )
    for part in bodies:
        part.body = fuse(part.body, rewrites)  # type: ignore[arg-type]
    return rewritten.eval()


def is_fusible(model: nn.Module, task: str) -> bool:
    """Return True where all that `fused` would rewrite are networks of dots_zoo."""
    parts: list[Any] = [part.body for part in _bodies(model)] if task in ADAPTERS else [model]
    return bool(parts) and all(isinstance(getattr(part, "model", part), CellNet) for part in parts)


def _bodies(model: nn.Module) -> list[nn.Module]:
    """Return the backbones of a detector or segmenter."""
    return [part for part in model.modules() if type(part).__name__ == "DotsBackbone"]


def _is_features(model: nn.Module) -> bool:
    info = getattr(model, "feature_info", None)  # a list in a classifier
    return callable(getattr(info, "reduction", None))


def _as_json(entries: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in entries.items()}
