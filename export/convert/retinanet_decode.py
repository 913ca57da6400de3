"""Decode a RetinaNet of MMDetection up to its candidates: the traced network, and boxes from its maps.

Source: Lin et al., Focal Loss for Dense Object Detection (2017), Sec. 4; Ren et al., Faster R-CNN (2015),
Eq. 2; mmdet 3.3's test_cfg. Suppression is in detect.py.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots_zoo.runtime.errors import DotsZooError

from .pre_post import Wrapped, classes, normalisation

MAX_RATIO = math.log(1000 / 16)  # mmdet's limit of what width and height are multiplied by


def detect_maps(model: nn.Module) -> Wrapped:
    """Wrap the network: `logits_<stride>` (N, A * classes, h, w) and `deltas_<stride>` (N, A * 4, h, w).

    Raises DotsZooError for another detector than one with anchors, sigmoid scores and deltas of x, y, w, h.
    """
    head = head_of(model)
    strides = [stride for stride, _ in head.prior_generator.strides]
    names = tuple(f"{output}_{stride}" for output in ("logits", "deltas") for stride in strides)
    return Wrapped(Maps(model), names, classes(model, head.num_classes))


def head_of(model: nn.Module) -> Any:
    """Return the head. Raises DotsZooError for one that the decoding below is not written for."""
    head: Any = getattr(model, "bbox_head", None)
    coder: Any = getattr(head, "bbox_coder", None)
    requirements = {
        "an anchor head": type(getattr(head, "prior_generator", None)).__name__ == "AnchorGenerator",
        "DeltaXYWHBBoxCoder": type(coder).__name__ == "DeltaXYWHBBoxCoder"
        and not coder.add_ctr_clamp
        and coder.clip_border,
        "sigmoid scores": bool(getattr(head, "use_sigmoid_cls", False)),
    }
    if missing := [name for name, met in requirements.items() if not met]:
        raise DotsZooError(
            f"task detect exports RetinaNet and its like, with {missing[0]}; got {type(model).__name__} with "
            f"{type(head).__name__}"
        )
    test: Any = model.test_cfg
    nms = dict(test.get("nms") or {})
    if nms.pop("type", None) != "nms" or set(nms) != {"iou_threshold"} or test.get("nms_pre", 0) < 1:
        raise DotsZooError(
            "task detect: expected test_cfg with nms_pre and nms = dict(type='nms', iou_threshold=...), got "
            f"{dict(test)}"
        )
    return head


class Maps(nn.Module):
    """Normalised images, RGB, of any size -> logits of every level, then deltas of every level.

    Pads with zeros at the bottom and at the right to a multiple of the config's pad_size_divisor.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.divisor: int = model.data_preprocessor.pad_size_divisor
        self.swapped = normalisation(model)[2]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        height, width = image.shape[2:]
        image = image.flip(1) if self.swapped else image
        if self.divisor > 1:
            image = F.pad(image, (0, -width % self.divisor, 0, -height % self.divisor))
        logits, deltas = self.model.bbox_head(self.model.extract_feat(image))
        return (*logits, *deltas)


class Decode(nn.Module):
    """Maps of every level -> candidates: the best `nms_pre` pairs of an anchor and a class of every level.

    limits: (4,) width, height, width, height of the images. Returns boxes (B, M, 4), clipped to the images;
    scores (B, M), -1 where a box is not wider and higher than min_bbox_size; labels (B, M); and the boxes
    moved apart by class, so that those of different classes do not overlap. M is at least max_per_img.

    open_size: height and width of the maps are not known: a level may have fewer pairs than nms_pre, and is
    padded with scores of -1.
    """

    def __init__(self, model: nn.Module, open_size: bool) -> None:
        super().__init__()
        head, self.open_size = head_of(model), open_size
        test: Any = model.test_cfg
        self.classes: int = head.cls_out_channels
        self.most, self.count = int(test.nms_pre), int(test.max_per_img)
        self.threshold, self.smallest = float(test.score_thr), float(test.get("min_bbox_size", -1))
        self.strides = list(head.prior_generator.strides)
        self.anchors = [anchors.clone() for anchors in head.prior_generator.base_anchors]  # (A, 4) a level
        self.means, self.stds = (torch.tensor(x) for x in (head.bbox_coder.means, head.bbox_coder.stds))

    def forward(
        self, limits: Tensor, logits: list[Tensor], deltas: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parts = [self.level(i, *maps) for i, maps in enumerate(zip(logits, deltas, strict=True))]
        scores, labels, anchors, moves = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        boxes = torch.minimum(self.boxes(anchors, moves).clamp(min=0), limits)
        width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
        scores = torch.where((width > self.smallest) & (height > self.smallest), scores, -1.0)
        above_threshold = (scores > self.threshold)[..., None]  # (B, M, 1)
        furthest = torch.where(above_threshold, boxes, 0.0).amax((1, 2))  # (B,)
        apart = boxes + (labels * (furthest[:, None] + 1))[..., None]
        return boxes, scores, labels, apart

    def level(self, index: int, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scores (B, k), labels (B, k), anchors (B, k, 4) and deltas (B, k, 4) of the best k pairs."""
        batch = logits.shape[0]
        scores = logits.permute(0, 2, 3, 1).reshape(batch, -1).sigmoid()  # (B, h * w * A * classes)
        moves = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)  # (B, h * w * A, 4)
        anchors = self.grid(index, logits)  # (h * w * A, 4)
        best = self.most
        if self.open_size:
            scores = F.pad(scores, (0, best), value=-1.0)
            moves, anchors = F.pad(moves, (0, 0, 0, best)), F.pad(anchors, (0, 0, 0, best))
        else:
            best = min(best, scores.shape[1])
        scores, pairs = scores.topk(best, dim=1)
        short = self.count - len(self.strides) * self.most if self.open_size else self.count - best
        if index == 0 and short > 0:  # the outputs have max_per_img rows, whatever the size
            scores, pairs = F.pad(scores, (0, short), value=-1.0), F.pad(pairs, (0, short))
        positions = pairs // self.classes  # (B, k) anchors
        moves = moves.gather(1, positions[..., None].expand(-1, -1, 4))
        return scores, pairs % self.classes, anchors[positions], moves

    def grid(self, index: int, maps: Tensor) -> Tensor:
        """Return the anchors of a level, by row, column and shape, (h * w * A, 4)."""
        right, down = self.strides[index]
        y = torch.arange(maps.shape[2], dtype=torch.float32)[:, None] * down
        x = torch.arange(maps.shape[3], dtype=torch.float32)[None, :] * right
        x, y = x + torch.zeros_like(y), y + torch.zeros_like(x)
        corners = torch.stack([x, y, x, y], -1)  # (h, w, 4)
        anchors: Tensor = corners[:, :, None] + self.anchors[index]
        return anchors.reshape(-1, 4)

    def boxes(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Return corners (..., 4): the centre moves by a share of the anchor, its sides are scaled."""
        deltas = deltas * self.stds + self.means
        centre, sides = (anchors[..., :2] + anchors[..., 2:]) * 0.5, anchors[..., 2:] - anchors[..., :2]
        centre = centre + sides * deltas[..., :2]
        half = sides * deltas[..., 2:].clamp(-MAX_RATIO, MAX_RATIO).exp() * 0.5
        return torch.cat([centre - half, centre + half], -1)
