"""Pre- and post-processing: the network that is traced, and what its task puts around it in the file.

The network is traced, lowered and proven element by element. Around it come bytes as input and answers
as output, which are proven as a whole; detect.py and segment.py have theirs, classifiers have none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
import torch
from onnx import TensorProto, compose, helper, parser
from torch import Tensor, nn

from .options import ImageType
from .precision import Precision
from .trace import INPUT


@dataclass(frozen=True)
class Wrapped:
    """A network as its task has it traced.

    module: its forward has the one argument `image` (N, C, H, W) and returns a tuple of tensors of N rows.
    outputs: their names, in order. metadata: what the file says of them.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    metadata: dict[str, str]


class TaskAdapter(Protocol):
    """The pre- and post-processing of a task. `model` is the exported network or a copy of it."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the file's outputs, in order."""

    def metadata(
        self, model: nn.Module, size: tuple[int, int, int], dynamic: Sequence[str]
    ) -> dict[str, str]:
        """Return what the file says of its use. Raises DotsZooError for sizes that cannot be left open."""

    def attach(
        self,
        graph: onnx.ModelProto,
        model: nn.Module,
        size: tuple[int, int, int],
        *,
        dynamic: Sequence[str],
        opset: int,
    ) -> onnx.ModelProto:
        """Return the whole graph: the network's with pre- and post-processing around it."""

    def is_informative(self, model: nn.Module, batches: Sequence[Tensor]) -> bool:
        """Return True where the answers for these images can tell a right graph from a wrong one."""

    def perturb_classifier(self, model: nn.Module, images: Tensor) -> None:
        """Change the last layer of a copy in place so that its answers are informative."""

    def check(
        self, content: bytes, model: nn.Module, batches: Sequence[Tensor], precision: Precision, where: str
    ) -> dict[str, Any]:
        """Return figures of the comparison with torch. Raises ParityError where the answers differ."""


def classes(model: nn.Module, count: int) -> dict[str, str]:
    """Return the number of classes for the file, and their names where the model's cfg has them."""
    config: Any = getattr(model, "pretrained_cfg", {})
    names = config.get("label_names")
    named = {"class_names": json.dumps(list(names))} if names and len(names) == count else {}
    return {"classes": str(count), **named}


def normalisation(model: nn.Module) -> tuple[Tensor, Tensor, bool]:
    """Return (mean (3,), std (3,), is BGR) of pixels 0 to 255, in the network's order of channels."""
    processor: Any = model.data_preprocessor
    # mmcv reads files as BGR: a network that swaps that takes RGB. mmdet and mmseg name it differently.
    name = "channel_conversion" if hasattr(processor, "channel_conversion") else "_channel_conversion"
    return processor.mean.flatten(), processor.std.flatten(), not getattr(processor, name)


def as_pixels(images: Tensor, model: nn.Module) -> Tensor:
    """Return the uint8 RGB images (N, 3, H, W) nearest to normalised RGB ones."""
    mean, std, swapped = normalisation(model)
    mean, std = (mean.flip(0), std.flip(0)) if swapped else (mean, std)
    pixels = images * std[:, None, None] + mean[:, None, None]
    return pixels.round().clamp(0, 255).to(torch.uint8)


def normalised(pixels: Tensor, model: nn.Module) -> Tensor:
    """Normalise uint8 RGB images (N, 3, H, W) as the graph's float32 input has them."""
    mean, std, swapped = normalisation(model)
    mean, std = (mean.flip(0), std.flip(0)) if swapped else (mean, std)
    return (pixels.float() - mean[:, None, None]) / std[:, None, None]


def feeds(images: Tensor, model: nn.Module, image: ImageType) -> tuple[Tensor, Tensor]:
    """Return (the file's input, the same normalised) of normalised test images (N, 3, H, W)."""
    if image == "float32":
        return images, images
    pixels = as_pixels(images, model)
    return pixels, normalised(pixels, model)


def append(graph: onnx.ModelProto, text: str, name: str) -> onnx.ModelProto:
    """Append a graph written in ONNX's text form.

    The inputs of `text` are values of the graph. Its own values and nodes are prefixed with `name`; its
    outputs become those of the whole.
    """
    return join(graph, parser.parse_model(text), name)


def join(graph: onnx.ModelProto, tail: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Append `tail`, whose inputs are values of the graph, as `append` does."""
    whole, prefixed = onnx.ModelProto(), onnx.ModelProto()
    whole.CopyFrom(graph)
    prefixed.CopyFrom(tail)
    compose.add_prefix(prefixed, f"{name}/", rename_inputs=False, rename_outputs=False, inplace=True)
    for part in ("node", "initializer", "value_info"):
        getattr(whole.graph, part).extend(getattr(prefixed.graph, part))
    del whole.graph.output[:]
    whole.graph.output.extend(prefixed.graph.output)
    return whole


def prepend_normalisation(graph: onnx.ModelProto, model: nn.Module) -> onnx.ModelProto:
    """Return the graph with uint8 RGB images (N, 3, H, W) as its input, normalised inside."""
    mean, std, swapped = normalisation(model)
    mean, std = (mean.flip(0), std.flip(0)) if swapped else (mean, std)
    whole = onnx.ModelProto()
    whole.CopyFrom(graph)
    inner = f"{INPUT} normalised"
    for node in whole.graph.node:
        node.input[:] = [inner if value == INPUT else value for value in node.input]
    values = {"mean": mean, "scale": 1 / std}
    whole.graph.initializer.extend(
        helper.make_tensor(f"{INPUT} {key}", TensorProto.FLOAT, [3, 1, 1], value.tolist())
        for key, value in values.items()
    )
    normalise = [
        helper.make_node("Cast", [INPUT], [f"{INPUT} float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{INPUT} float", f"{INPUT} mean"], [f"{INPUT} centred"]),
        helper.make_node("Mul", [f"{INPUT} centred", f"{INPUT} scale"], [inner]),
    ]
    nodes = [*normalise, *whole.graph.node]
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    [value] = [value for value in whole.graph.input if value.name == INPUT]
    value.type.tensor_type.elem_type = TensorProto.UINT8
    return whole
