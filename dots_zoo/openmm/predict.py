"""`dots-zoo det|seg predict`: draw boxes or labels on images, and write them as JSON."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from ..runtime.atomic_write import follow_links, write_file
from ..runtime.errors import DotsZooError
from .backbone import DotsBackbone
from .check_data import class_names
from .config import build_model
from .progress import quiet

SOFTWARE = "dots-zoo predict"  # in every image that is written, so that the next prediction may replace it


def predict(
    cfg: Any, task: str, checkpoint: Path, images: Sequence[Path], out: Path, score: float = 0.3
) -> list[dict[str, Any]]:
    """Write a drawn NAME.png for every image into `out`, and predictions.json.

    Boxes are kept from `score` on, in pixels of the image as [x1, y1, x2, y2]. Labels are written as
    NAME_labels.png, 8-bit class indices at the image's size; predictions.json has the share of every class.
    Returns the entries of predictions.json. Raises DotsZooError before anything is written where an image
    cannot be read or is smaller than the largest stride, and where a file in `out` would be replaced that an
    earlier prediction did not write.
    """
    _check_outputs(task, images, out)
    model: Any = build_model(cfg, task, checkpoint=checkpoint)
    pictures = [_open(path, model) for path in images]
    names, entries = class_names(cfg), []
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DotsZooError(f"{out}: cannot be made: {error.strerror}") from error
    for path, picture in zip(images, pictures, strict=True):
        sample = infer(model, path)
        if task == "det":
            drawn, entry = _draw_boxes(picture, sample.pred_instances, names, score)
        else:
            drawn, entry = _draw_labels(
                picture, sample.pred_sem_seg.data[0], names, out / f"{path.stem}_labels.png"
            )
        _write_image(out / f"{path.stem}.png", to_pil_image(drawn))
        entries.append({"image": str(path), **entry})
    write_file(out / "predictions.json", json.dumps(entries, indent=1).encode())
    return entries


def _check_outputs(task: str, images: Sequence[Path], out: Path) -> None:
    """Refuse outputs that meet each other, an image that is given, or a file of anybody else's."""
    suffixes = (".png", "_labels.png") if task == "seg" else (".png",)
    sources: dict[Path, Path] = {}
    for image in images:
        for path in [out / f"{image.stem}{suffix}" for suffix in suffixes]:
            if path in sources:
                raise DotsZooError(
                    f"predict: {sources[path]} and {image} have the same name without folder and suffix, and "
                    f"both would be drawn to {path}: give them different names, or a folder each"
                )
            sources[path] = image
    given = {Path(os.path.realpath(path)) for path in images}
    for path in [*sources, out / "predictions.json"]:
        if follow_links(path) in given:
            raise DotsZooError(
                f"{path}: expected a folder without the images that are given, got one of them, which the "
                "drawing would replace: give another folder with -o"
            )
        if path.exists() and not _is_prediction(path):
            raise DotsZooError(
                f"{path}: expected a new file or one of an earlier prediction, got another, which is left as "
                "it is: move it, or give another folder with -o"
            )


def _is_prediction(path: Path) -> bool:
    """Return whether `predict` wrote a file: an image that says so, or predictions.json."""
    try:
        if path.suffix == ".json":
            entries = json.loads(path.read_bytes())
            return isinstance(entries, list) and all({*entry} & {"boxes", "shares"} for entry in entries)
        with Image.open(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, TypeError, ValueError):
        return False


def infer(model: nn.Module, path: Path) -> Any:
    """Predict a file with a model of build_model by its config's test pipeline; return the data sample."""
    cfg: Any = model.cfg
    with DefaultScope.overwrite_default_scope(cfg.default_scope), quiet():
        steps = [
            step for step in cfg.test_dataloader.dataset.pipeline if "LoadAnnotations" not in step["type"]
        ]
        data = Compose([step for step in steps if step["type"] != "CheckLabels"])(
            {"img_path": str(path), "img_id": 0}
        )
        with torch.no_grad():
            [sample] = model.test_step({"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]})  # type: ignore[operator]
    return sample


def _open(path: Path, model: nn.Module) -> Tensor:
    """Read an image as uint8 (3, H, W). Raises DotsZooError where it cannot be decoded or is too small."""
    try:
        with Image.open(path) as image:
            picture: Tensor = pil_to_tensor(image.convert("RGB"))
    except OSError as error:
        raise DotsZooError(f"{path}: not an image that can be decoded ({error})") from error
    stride = max((part.strides[-1] for part in model.modules() if isinstance(part, DotsBackbone)), default=1)
    if min(picture.shape[1:]) < stride:
        raise DotsZooError(
            f"{path}: expected an image of at least {stride}x{stride} pixels, the largest stride, got "
            f"{picture.shape[2]}x{picture.shape[1]}"
        )
    return picture


def _draw_boxes(
    picture: Tensor, instances: Any, names: Sequence[str], score: float
) -> tuple[Tensor, dict[str, Any]]:
    """Return the image (3, H, W) with the boxes from `score` on, and their entry of predictions.json."""
    kept = instances[instances.scores >= score].cpu()
    boxes = [
        {"box": [round(x, 1) for x in box], "label": names[label], "score": round(value, 4)}
        for box, label, value in zip(
            kept.bboxes.tolist(), kept.labels.tolist(), kept.scores.tolist(), strict=True
        )
    ]
    if boxes:
        titles = [f"{entry['label']} {entry['score']:.2f}" for entry in boxes]
        colours = [_colour(label) for label in kept.labels.tolist()]
        picture = draw_bounding_boxes(picture, kept.bboxes, titles, colours, width=2)
    return picture, {"boxes": boxes}


def _draw_labels(
    picture: Tensor, labels: Tensor, names: Sequence[str], path: Path
) -> tuple[Tensor, dict[str, Any]]:
    """Return the image (3, H, W) under its labels (H, W), and their entry of predictions.json."""
    labels = labels.cpu()
    _write_image(path, Image.fromarray(labels.numpy().astype(np.uint8)))
    masks = torch.stack([labels == index for index in range(len(names))])  # (classes, H, W)
    shares = {
        name: round(float(mask.float().mean()), 4)
        for name, mask in zip(names, masks, strict=True)
        if mask.any()
    }
    colours = [_colour(index) for index in range(len(names))]
    return draw_segmentation_masks(picture, masks, alpha=0.6, colors=colours), {"shares": shares}


def _colour(index: int) -> tuple[int, int, int]:
    """Return PASCAL VOC's colour: the index's bits, lowest first, go to red, green and blue from the top."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index + 1) >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


def _write_image(path: Path, image: Image.Image) -> None:
    data = io.BytesIO()
    mark = PngInfo()
    mark.add_text("Software", SOFTWARE)
    image.save(data, format="png", pnginfo=mark)
    write_file(path, data.getvalue())
