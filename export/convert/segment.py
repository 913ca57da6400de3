"""Export a segmenter of MMSegmentation as one graph: image -> label map, or the score of every class.

The network, image -> logits at the size of the image, is traced, lowered and proven as any other; the largest
class is an operator after it. The result is compared with MMSegmentation's own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.runtime.errors import DotsZooError

from .detect import resize_rule
from .options import IMAGE_TYPES, IOSpec
from .parity import ParityError, run_onnx
from .pre_post import Wrapped, append, classes, feeds, normalisation, prepend_normalisation
from .precision import Precision

# The share of pixels with the same label at least. A pixel between two classes may fall on either side.
AGREEMENT: dict[Precision, float] = {"fp32": 0.999, "fp16": 0.98, "int8": 0.7}

LARGEST = """
<ir_version: 10, opset_import: ["" : {opset}]>
largest (float[batch, classes, height, width] logits) => (int64[{sizes}] labels)
{{
    labels = ArgMax <axis = 1, keepdims = 0> (logits)
}}
"""


def segment_logits(model: nn.Module) -> Wrapped:
    """Wrap the network: `logits` (N, classes, H, W), at the size of the image.

    Raises DotsZooError for another model than a segmenter of whole images with a score for every class.
    """
    head: Any = getattr(model, "decode_head", None)
    if head is None or isinstance(head, nn.ModuleList) or head.out_channels != head.num_classes:
        raise DotsZooError(
            "task segment exports segmenters with one decode_head that has a score for every class, got "
            f"{type(model).__name__}"
        )
    test: Any = model.test_cfg
    mode = test.get("mode", "whole")
    if mode != "whole":
        raise DotsZooError(f"task segment: expected test_cfg with mode 'whole', got {mode!r}")
    return Wrapped(_Logits(model), ("logits",), classes(model, head.num_classes))


class _Logits(nn.Module):
    """Normalised images, RGB -> (N, classes, H, W)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.swapped = normalisation(model)[2]

    def forward(self, image: Tensor) -> tuple[Tensor]:
        size = image.shape[2:]
        image = image.flip(1) if self.swapped else image
        logits = self.model.decode_head(self.model.extract_feat(image))
        return (F.interpolate(logits, size, mode="bilinear", align_corners=self.model.align_corners),)


def reference(model: Any, images: Tensor) -> Tensor:
    """Return MMSegmentation's own logits (N, classes, H, W) for normalised RGB images (N, 3, H, W)."""
    shape = (images.shape[2], images.shape[3])
    images = images.flip(1) if normalisation(model)[2] else images
    with torch.no_grad():
        logits: Tensor = model.inference(images, [{"img_shape": shape, "ori_shape": shape} for _ in images])
    return logits


@dataclass(frozen=True)
class Segmenter:
    """The adapter of task segment: the largest class, and bytes as input."""

    io: IOSpec

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("logits",) if self.io.logits else ("labels",)

    def metadata(
        self, model: nn.Module, size: tuple[int, int, int], dynamic: Sequence[str]
    ) -> dict[str, str]:
        open_size = {"height", "width"} <= set(dynamic)
        rule = resize_rule(model.cfg, None if open_size else (size[1], size[2]))
        corners: Any = model.align_corners
        return {
            "image": IMAGE_TYPES[self.io.image],
            "resize": json.dumps(rule),
            "align_corners": json.dumps(bool(corners)),  # of scores that are scaled to another size
        }

    def attach(
        self,
        graph: onnx.ModelProto,
        model: nn.Module,
        size: tuple[int, int, int],
        *,
        dynamic: Sequence[str],
        opset: int,
    ) -> onnx.ModelProto:
        if not self.io.logits:
            fixed = dict(zip(("batch", "height", "width"), (1, *size[1:]), strict=True))
            sizes = ", ".join(axis if axis in dynamic else str(extent) for axis, extent in fixed.items())
            graph = append(graph, LARGEST.format(opset=opset, sizes=sizes), "labels")
        return prepend_normalisation(graph, model) if self.io.image == "uint8" else graph

    def is_informative(self, model: nn.Module, batches: Sequence[Tensor]) -> bool:
        """Return True where more than one class is the largest somewhere."""
        return any(len(reference(model, batch).argmax(1).unique()) > 1 for batch in batches)

    def perturb_classifier(self, model: nn.Module, images: Tensor) -> None:
        """Shift the classifier so that every class has the same mean score, and none covers all."""
        classifier: Any = model.decode_head.conv_seg  # type: ignore[union-attr]
        with torch.no_grad():
            classifier.bias.sub_(reference(model, images).mean((0, 2, 3)))

    def check(
        self, content: bytes, model: nn.Module, batches: Sequence[Tensor], precision: Precision, where: str
    ) -> dict[str, Any]:
        fed = [feeds(batch, model, self.io.image) for batch in batches]
        _, outputs = run_onnx(content, [images for images, _ in fed], where)
        same = total = 0
        for [got], (_, images) in zip(outputs, fed, strict=True):
            labels = got.argmax(1) if self.io.logits else got
            expected = reference(model, images).argmax(1)
            if labels.shape != expected.shape:
                raise ParityError(
                    f"{where}: labels of {tuple(labels.shape)}, and torch's of {tuple(expected.shape)}"
                )
            same, total = same + int((labels == expected).sum()), total + expected.numel()
        if not same / total >= AGREEMENT[precision]:
            raise ParityError(
                f"{where}: {same / total:.2%} of the pixels have torch's label, at least "
                f"{AGREEMENT[precision]:.1%} are needed: the graph is wrong"
            )
        return {"label_agreement": same / total}
