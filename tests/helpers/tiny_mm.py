"""Pictures of light squares and discs on dark noise, laid out as BCCD and CamVid are, and tiny configs."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dots_zoo.openmm.config import shipped

CLASSES = ("square", "disc")
SIDE = 64

DETECTOR = """
_base_ = {base!r}
metainfo = dict(_delete_=True, classes=("square", "disc"))
data_root = "data/bccd/"
size = (64, 64)
model = dict(
    backbone=dict(model_name="cell_mobile", genotype="darts_v1", model_kwargs=dict(channels=4, layers=5)),
    neck=dict(in_channels=[4, 16, 32, 64], out_channels=16),
    bbox_head=dict(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1,
                   norm_cfg=dict(num_groups=4)),
)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=size, keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(dataset=dict(pipeline=pipeline, metainfo=metainfo))
val_dataloader = dict(dataset=dict(pipeline=pipeline, metainfo=metainfo))
test_dataloader = dict(dataset=dict(pipeline=pipeline, metainfo=metainfo))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_cfg = dict(max_epochs={epochs}, val_interval=1)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=5)]
"""

SEGMENTER = """
_base_ = {base!r}
metainfo = dict(classes=("Sky", "Building"))
size = (64, 64)
model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(
        width=16,
        spatial_channels=(8, 8, 8, 16),
        out_channels=32,
        backbone_cfg=dict(
            model_name="cell_mobile", genotype="darts_v1", model_kwargs=dict(channels=4, layers=5)
        ),
    ),
    decode_head=dict(in_channels=32, channels=16, num_classes=2, loss_decode=dict(class_weight=[1.0, 3.0])),
    auxiliary_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=16,
        channels=8,
        num_convs=1,
        num_classes=2,
        in_index=1,
        norm_cfg=dict(type="BN"),
        loss_decode=dict(type="WeightedCrossEntropy", class_weight=[1.0, 3.0]),
    ),
)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=pipeline, metainfo=metainfo))
val_dataloader = dict(dataset=dict(pipeline=pipeline, metainfo=metainfo))
test_dataloader = dict(dataset=dict(pipeline=pipeline, metainfo=metainfo))
optim_wrapper = dict(optimizer=dict(lr=1e-2))
train_cfg = dict(max_epochs={epochs}, val_interval=1)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3)]
"""


def write_config(path: Path, task: str, epochs: int) -> Path:
    """A tiny network for the pictures, derived from the shipped config of BCCD or CamVid."""
    name = "retinanet_dots_imagenet_light_fpn_bccd" if task == "det" else "bisenetv1_dots_imagenet_camvid"
    text = DETECTOR if task == "det" else SEGMENTER
    path.write_text(text.format(base=str(shipped(task)[name]), epochs=epochs))
    return path


def _picture(draws: np.random.Generator) -> tuple[Image.Image, list[tuple[int, list[int]]], Image.Image]:
    """An image of 64x64, its (class, [x, y, width, height]) in a left and a right half, its labels."""
    image = Image.fromarray(draws.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8))
    labels = Image.new("L", (SIDE, SIDE), 0)
    boxes = []
    for left in (0, SIDE // 2):
        label, side = int(draws.integers(2)), int(draws.integers(16, 25))
        x, y = left + int(draws.integers(0, SIDE // 2 - side + 1)), int(draws.integers(0, SIDE - side + 1))
        corners = [x, y, x + side - 1, y + side - 1]
        for target, fill in ((image, (220, 220, 220)), (labels, 1)):
            draw = ImageDraw.Draw(target)
            (draw.rectangle if label == 0 else draw.ellipse)(corners, fill=fill)
        boxes.append((label, [x, y, side, side]))
    return image, boxes, labels


def make_coco(root: Path, counts: dict[str, int]) -> Path:
    """images/ and instances_SPLIT.json in COCO's format; category ids are 3 and 7."""
    (root / "images").mkdir(parents=True)
    draws = np.random.default_rng(0)
    for split, count in counts.items():
        images, annotations = [], []
        for index in range(count):
            image, boxes, _ = _picture(draws)
            name = f"{split}{index}.jpg"
            image.save(root / "images" / name, quality=95)
            image_id = len(images) + 1
            images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
            for label, box in boxes:
                entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": (3, 7)[label]}
                annotations.append({**entry, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        categories = [{"id": 3, "name": "square"}, {"id": 7, "name": "disc"}]
        table = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"instances_{split}.json").write_text(json.dumps(table))
    return root


def make_camvid(root: Path, counts: dict[str, int]) -> Path:
    """SPLIT/images/*.jpg and SPLIT/labels/*.png: Sky around, Building inside, a void (11) row on top."""
    draws = np.random.default_rng(0)
    for split, count in counts.items():
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True)
        for index in range(count):
            image, _, labels = _picture(draws)
            labels.paste(11, (0, 0, SIDE, 1))
            image.save(root / split / "images" / f"{index}.jpg", quality=95)
            labels.save(root / split / "labels" / f"{index}.png")
    return root
