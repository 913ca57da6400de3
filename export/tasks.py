"""What a graph is asked to do: a task wraps a torch model and names what goes in and what comes out.

The input is always `image`. A task is a function from a model to a Wrapped; a new one is a function here or
in a module of its own, and its name in TASKS.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dots_zoo.errors import DotsZooError


@dataclass(frozen=True)
class Wrapped:
    """module: its forward has the one argument `image` and returns a tuple of tensors, one row an image.

    outputs: their names, in order. metadata: what the file says of them.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    metadata: dict[str, str]


class _Graph(nn.Module):
    """The model as the exporters want it: one argument, named as the input; a tuple of outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out = self.model(image)
        return (out,) if isinstance(out, Tensor) else tuple(out)


def classify(model: nn.Module) -> Wrapped:
    """`logits` (N, classes). The file has the classes' number, and their names where timm's cfg has them."""
    if _is_features(model):
        raise DotsZooError(f"task classify needs a model that classifies of timm, got {type(model).__name__}")
    config: Any = getattr(model, "pretrained_cfg", {})
    count, names = getattr(model, "num_classes", None), config.get("label_names")
    named = {"class_names": list(names)} if names and len(names) == count else {}
    return Wrapped(_Graph(model), ("logits",), {"classes": str(count), **_as_json(named)})


def features(model: nn.Module) -> Wrapped:
    """One `feature_<stride>` (N, C, H, W) a map; a second map of one stride is `feature_<stride>_1`."""
    if not _is_features(model):
        raise DotsZooError(f"task features needs a features_only model of timm, got {type(model).__name__}")
    info: Any = model.feature_info
    strides = [int(stride) for stride in info.reduction()]
    again = [strides[:i].count(stride) for i, stride in enumerate(strides)]
    names = tuple(f"feature_{s}_{n}" if n else f"feature_{s}" for s, n in zip(strides, again, strict=True))
    return Wrapped(_Graph(model), names, _as_json({"channels": list(info.channels()), "strides": strides}))


TASKS: dict[str, Callable[[nn.Module], Wrapped]] = {"classify": classify, "features": features}


def wrap(model: nn.Module, task: str) -> Wrapped:
    """Raises DotsZooError for a task that is not known, and for a model that does not suit it."""
    if task not in TASKS:
        raise DotsZooError(f"unknown task {task!r}: expected {' or '.join(TASKS)}")
    return TASKS[task](model)


def _is_features(model: nn.Module) -> bool:
    info = getattr(model, "feature_info", None)  # a list in a classifier
    return callable(getattr(info, "reduction", None))


def _as_json(entries: dict[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in entries.items()}
