"""Export a RetinaNet of MMDetection as one graph: image -> boxes, scores, labels.

Three parts. The network, image -> maps of every level, is traced, lowered and proven as any other. Decoding,
maps -> candidates, is traced from a module of its own (both in retinanet_decode.py). Non-maximum suppression
is ONNX's operator, in text. The result is compared with MMDetection's own post-processing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from dots_zoo.runtime.errors import DotsZooError

from .options import IMAGE_TYPES, IOSpec
from .parity import ParityError, run_onnx
from .pre_post import append, feeds, join, prepend_normalisation
from .precision import Precision
from .retinanet_decode import Decode, Maps, head_of
from .trace import trace_parts

ENOUGH = 10  # boxes in all test images, for a comparison that tells
PADDING = -1  # in every output, after the detections

# Pixels. Where corners as near as this have less than the least IoU, a box is too thin for IoU to tell:
# there, corners as near, or as half of what the least IoU leaves of a side, are of one box.
NEAR = 0.05

# Least IoU and largest difference of the scores of a pair of boxes, and the least share of boxes in pairs.
PAIRED: dict[Precision, tuple[float, float, float]] = {
    "fp32": (0.99, 1e-3, 0.99),
    "fp16": (0.9, 2e-2, 0.9),
    "int8": (0.5, 0.2, 0.5),
}

SUPPRESSION = """
<ir_version: 10, opset_import: ["" : {opset}]>
suppression (float[batch, candidates, 4] candidates, float[batch, candidates] candidate_scores,
             int64[batch, candidates] candidate_labels, float[batch, candidates, 4] apart)
    => (float[{batch}, {count}, 4] boxes, float[{batch}, {count}] scores, int64[{batch}, {count}] labels)
<int64[1] count = {{{count}}}, float[1] overlap = {{{overlap}}}, float[1] threshold = {{{threshold}}},
 int64[1] one = {{1}}, int64[1] two = {{2}}, int64[2] image_and_box = {{0, 2}},
 int64[3] corners = {{1, 1, 4}}, float zero = {{0.0}}, float nothing = {{-1.0}}, int64 no_label = {{-1}}>
{{
    of_one_class = Unsqueeze(candidate_scores, one)
    selected = NonMaxSuppression(apart, of_one_class, count, overlap, threshold)
    places = Gather <axis = 1> (selected, image_and_box)
    best = GatherND(candidate_scores, places)
    shape = Shape(candidate_scores)
    none = ConstantOfShape <value = float[1] {{-1.0}}> (shape)
    left = ScatterND(none, places, best)
    scores, order = TopK(left, count)
    found = GreaterOrEqual(scores, zero)
    found_boxes = Unsqueeze(found, two)
    order_of_boxes = Unsqueeze(order, two)
    order_of_corners = Expand(order_of_boxes, corners)
    ordered_boxes = GatherElements <axis = 1> (candidates, order_of_corners)
    ordered_labels = GatherElements <axis = 1> (candidate_labels, order)
    boxes = Where(found_boxes, ordered_boxes, nothing)
    labels = Where(found, ordered_labels, no_label)
}}
"""
LIMITS = """
<ir_version: 10, opset_import: ["" : {opset}]>
limits (float[batch, 3, height, width] image) => (float[4] limits)
<int64[4] order = {{3, 2, 3, 2}}>
{{
    shape = Shape(image)
    sides = Gather(shape, order)
    limits = Cast <to = 1> (sides)
}}
"""


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first: boxes (n, 4), scores (n,), labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def reference(model: Any, images: Tensor) -> list[Detections]:
    """Return the detections on normalised RGB images (N, 3, H, W) by MMDetection's own post-processing."""
    maps = Maps(model)
    shape = (images.shape[2], images.shape[3])
    with torch.no_grad():
        out = maps(images)
        logits, deltas = list(out[: len(out) // 2]), list(out[len(out) // 2 :])
        metas = [{"img_shape": shape} for _ in images]
        instances = model.bbox_head.predict_by_feat(logits, deltas, batch_img_metas=metas, rescale=False)
    return [Detections(image.bboxes, image.scores, image.labels) for image in instances]


def pairs(got: Detections, expected: Detections, overlap: float, score: float) -> list[tuple[int, int]]:
    """Return (index in got, index in expected) of boxes of one label, each in one pair, best score first.

    overlap: the least IoU of a pair. score: the largest difference of its scores.
    """
    iou = box_iou(expected.boxes, got.boxes)  # (n expected, n got)
    sides = (expected.boxes[:, 2:] - expected.boxes[:, :2]).repeat(1, 2)  # width, height, width, height
    allowed = ((1 - overlap) / 2 * sides).clamp(min=NEAR)
    near = ((expected.boxes[:, None] - got.boxes).abs() <= allowed[:, None]).all(2)
    near &= (sides.amin(1) < 2 * NEAR / (1 - overlap))[:, None]
    close = (expected.scores[:, None] - got.scores).abs() <= score
    fits = ((iou >= overlap) | near) & close & (expected.labels[:, None] == got.labels)
    unpaired = torch.ones(len(got.scores), dtype=torch.bool)
    paired = []
    for index in range(len(expected.scores)):
        candidates = torch.where(fits[index] & unpaired, iou[index], -1.0)
        if len(candidates) and candidates.max() >= 0:
            chosen = int(candidates.argmax())
            unpaired[chosen] = False
            paired.append((chosen, index))
    return paired


@dataclass(frozen=True)
class Detector:
    """The adapter of task detect: decoding, suppression and bytes as input."""

    io: IOSpec
    outputs: tuple[str, ...] = ("boxes", "scores", "labels")

    def metadata(
        self, model: nn.Module, size: tuple[int, int, int], dynamic: Sequence[str]
    ) -> dict[str, str]:
        open_size = _open_size(dynamic)
        test: Any = model.test_cfg
        processor: Any = model.data_preprocessor
        entries: dict[str, Any] = {
            "resize": resize_rule(model.cfg, None if open_size else (size[1], size[2])),
            "pad_divisor": processor.pad_size_divisor,  # inside the graph
            "suppression": {
                "nms_pre": test.nms_pre,
                "score_threshold": test.score_thr,
                "iou_threshold": test.nms.iou_threshold,
                "max_per_image": test.max_per_img,
            },
            "box_format": "x1, y1, x2, y2 in pixels of the input, clipped to it",
            "padding": f"{PADDING} in boxes, scores and labels after the boxes found",
        }
        return {"image": IMAGE_TYPES[self.io.image], **{k: _text(v) for k, v in entries.items()}}

    def attach(
        self,
        graph: onnx.ModelProto,
        model: nn.Module,
        size: tuple[int, int, int],
        *,
        dynamic: Sequence[str],
        opset: int,
    ) -> onnx.ModelProto:
        maps = Maps(model)
        with torch.no_grad():
            traced = maps(torch.zeros(2 if "batch" in dynamic else 1, *size))
        levels = len(traced) // 2
        limits = torch.tensor([size[2], size[1]] * 2, dtype=torch.float32)
        names = [value.name for value in graph.graph.output]
        decoded = trace_parts(
            Decode(model, _open_size(dynamic)),
            (limits, list(traced[:levels]), list(traced[levels:])),
            ("limits", *names),
            ("candidates", "candidate_scores", "candidate_labels", "apart"),
            dynamic=dynamic,
            opset=opset,
        )
        test: Any = model.test_cfg
        tail = SUPPRESSION.format(
            opset=opset,
            batch="batch" if "batch" in dynamic else 1,
            count=test.max_per_img,
            overlap=test.nms.iou_threshold,
            threshold=test.score_thr,
        )
        whole = append(
            join(append(graph, LIMITS.format(opset=opset), "size"), decoded, "decode"), tail, "nms"
        )
        return prepend_normalisation(whole, model) if self.io.image == "uint8" else whole

    def is_informative(self, model: nn.Module, batches: Sequence[Tensor]) -> bool:
        detections = [image for batch in batches for image in reference(model, batch)]
        return sum(len(image.scores) for image in detections) >= ENOUGH

    def perturb_classifier(self, model: nn.Module, images: Tensor) -> None:
        """Scale and shift the classifier so that a score passes the threshold here and there."""
        classifier = _classifier(model)
        with torch.no_grad():
            out = Maps(model)(images)
            logits = torch.cat([maps.flatten() for maps in out[: len(out) // 2]]).double()
            factor = 2 / float(logits.std())
            rank = min(len(logits), 4 * ENOUGH * len(images))
            limit = float(logits.topk(rank).values[-1])
            classifier.weight.mul_(factor)
            assert classifier.bias is not None  # the prior of the focal loss is in it
            classifier.bias.mul_(factor).sub_(factor * limit)

    def check(
        self, content: bytes, model: nn.Module, batches: Sequence[Tensor], precision: Precision, where: str
    ) -> dict[str, Any]:
        overlap, score, least_share = PAIRED[precision]
        in_graph = in_torch = in_both = 0  # boxes
        box_difference = score_difference = 0.0
        fed = [feeds(batch, model, self.io.image) for batch in batches]
        _, outputs = run_onnx(content, [images for images, _ in fed], where)
        for answers, (_, images) in zip(outputs, fed, strict=True):
            for got, expected in zip(unpadded(answers), reference(model, images), strict=True):
                paired = pairs(got, expected, overlap, score)
                in_graph, in_torch = in_graph + len(got.scores), in_torch + len(expected.scores)
                in_both += len(paired)
                for i, j in paired:
                    box_difference = max(
                        box_difference, float((got.boxes[i] - expected.boxes[j]).abs().max())
                    )
                    score_difference = max(
                        score_difference, float((got.scores[i] - expected.scores[j]).abs())
                    )
        if not in_graph + in_torch:
            raise ParityError(f"{where}: neither torch nor the graph finds a box: too little to tell by")
        share = 2 * in_both / (in_graph + in_torch)
        if not share >= least_share:
            raise ParityError(
                f"{where}: {in_both} boxes are in both of {in_torch} that torch finds and {in_graph} that "
                f"the graph finds: {share:.1%} are matched, {least_share:.0%} at least are needed: the graph "
                "is wrong"
            )
        return {
            "boxes": in_torch,
            "matched": share,
            "box_difference": box_difference,
            "score_difference": score_difference,
        }


def unpadded(outputs: Sequence[Tensor]) -> list[Detections]:
    """Return the detections image by image, of the file's outputs boxes, scores, labels (B, M, ...)."""
    boxes, scores, labels = outputs
    kept = labels >= 0
    return [Detections(b[k], s[k], n[k]) for b, s, n, k in zip(boxes, scores, labels, kept, strict=True)]


def resize_rule(cfg: Any, fixed: tuple[int, int] | None) -> dict[str, Any] | None:
    """Return how an image is scaled before the graph: bilinear, and padded afterwards to a fixed size.

    `long` and `short`: the image is scaled by the largest factor with which neither of its sides is longer
    than that. `height` and `width`: the same for the file's size, then padded at the bottom and at the
    right with the mean. None where the config does not resize.
    """
    [step] = [s for s in cfg.test_dataloader.dataset.pipeline if s["type"] == "Resize"] or [None]
    keep_ratio = step is None or bool(step.get("keep_ratio", False))
    if fixed is not None:
        return {"height": fixed[0], "width": fixed[1], "keep_ratio": keep_ratio}
    if step is None:
        return None
    width, height = step["scale"]
    if not keep_ratio:
        return {"height": height, "width": width, "keep_ratio": False}
    return {"long": max(width, height), "short": min(width, height), "keep_ratio": True}


def _classifier(model: nn.Module) -> nn.Conv2d:
    """Return the layer that computes the logits."""
    head = head_of(model)
    outputs = head.num_base_priors * head.cls_out_channels
    *_, last = [
        m
        for m in head.modules()
        if isinstance(m, nn.Conv2d) and m.out_channels == outputs and m.bias is not None
    ]
    return last


def _open_size(dynamic: Sequence[str]) -> bool:
    """Return True where height and width are left open. Raises DotsZooError where only one of them is."""
    open_axes = {"height", "width"} & set(dynamic)
    if len(open_axes) == 1:
        raise DotsZooError(
            f"task detect leaves height and width open together or not at all, got {min(open_axes)} alone"
        )
    return bool(open_axes)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
