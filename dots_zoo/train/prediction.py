"""`predict`: name what is on images, by a network or an exported file, as JSON and as a picture."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as F

from ..data.augment import normalise
from ..data.decode import UNREADABLE, parallel_map, problem, rgb
from ..data.transforms import middle_view
from ..runtime.atomic_write import check_output, follow_links, write_file
from ..runtime.errors import DotsZooError
from .classifier import Classifier, Input, open_classifier
from .contact_sheet import MOST_IMAGES, SUFFIXES, contact_sheet, thumbnail

NAMED = 3  # files that an error names


@dataclass(frozen=True)
class Predictions:
    """The answers of a network, image by image.

    Args:
        network: the reference or the file that was asked.
        rows: for every image {"image": its path, "answers": [{"class", "index", "probability"}, ...]}, the
            most probable answer first.
        path: the JSON file; None where none was requested.
        sheet: the contact sheet; None where none was requested.
    """

    network: str
    rows: tuple[dict[str, Any], ...]
    path: Path | None = None
    sheet: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of the JSON file."""
        return {"schema": 1, "kind": "predictions", "network": self.network, "rows": list(self.rows)}

    @property
    def lines(self) -> Iterator[str]:
        """Yield a line an image."""
        for row in self.rows:
            answers = (f"{a['class']} {100 * a['probability']:.1f} %" for a in row["answers"])
            yield f"{row['image']}: {', '.join(answers)}"


@dataclass(frozen=True)
class _Outputs:
    """The files that are requested, checked."""

    path: Path | None
    sheet: Path | None


def predict(
    network: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    top: int = 5,
    out: str | Path | None = None,
    sheet: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 32,
) -> Predictions:
    """Predict images with a network and its weights, or with an ONNX file of it: the same answers.

    Args:
        network: what reference.py takes, with weights, or a file.onnx that `export` wrote.
        images: image files, folders that are walked, and globs.
        top: number of answers an image, at most one a class.
        out: JSON file to write.
        sheet: picture to write of all images with their first answers.
        device: cpu, cuda or cuda:N; None: a GPU where there is one.
        batch_size: images at a time.

    Raises:
        DotsZooError: before anything is written, where an image cannot be read, an output cannot be written
            or would replace an image, and where the network cannot predict.
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise DotsZooError(f"{name}: expected 1 or more, got {value}")
    paths = image_files([images] if isinstance(images, str | os.PathLike) else images)
    outputs = _checked(None if out is None else Path(out), None if sheet is None else Path(sheet), paths)
    classifier = open_classifier(os.fspath(network), device)
    rows: list[dict[str, Any]] = []
    thumbnails: list[Image.Image] = []
    prepare = partial(_prepare, facts=classifier.input, with_thumbnail=outputs.sheet is not None)
    for part in _batches(paths, batch_size):
        prepared = list(parallel_map(prepare, part, os.cpu_count() or 1))
        probabilities = _probabilities(classifier, torch.stack([pixels for pixels, _ in prepared]))
        rows += [
            {"image": path, "answers": _answers(classifier, row, top)}
            for path, row in zip(part, probabilities, strict=True)
        ]
        thumbnails += [small for _, small in prepared if small is not None]
    result = Predictions(os.fspath(network), tuple(rows), outputs.path, outputs.sheet)
    if outputs.path is not None:
        write_file(outputs.path, json.dumps(result.as_dict(), indent=1).encode())
    if outputs.sheet is not None:
        captions = [
            f"{row['answers'][0]['class']} {100 * row['answers'][0]['probability']:.0f} %" for row in rows
        ]
        write_file(outputs.sheet, contact_sheet(thumbnails, captions, outputs.sheet.suffix))
    return result


def image_files(images: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the image files that are meant: files, all below folders, what globs match; sorted in each.

    Raises DotsZooError where one of them is none, and names the files that are no images.
    """
    paths: list[str] = []
    for given in [os.fspath(image) for image in images]:
        if os.path.isdir(given):
            files = sorted(
                str(path) for path in Path(given).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS
            )
        elif os.path.exists(given):
            files = [given]
        else:
            files = sorted(path for path in glob(given, recursive=True) if not os.path.isdir(path))
        if not files:
            where = "a folder without any" if os.path.isdir(given) else "nothing there"
            raise DotsZooError(f"predict: expected image files, folders or globs, got {given!r}: {where}")
        paths += files
    if not paths:
        raise DotsZooError("predict: expected image files, folders or globs, got none")
    paths = list(dict.fromkeys(paths))
    reasons = parallel_map(partial(problem, pixels=False), paths, os.cpu_count() or 1)
    bad = [f"{path} ({reason})" for path, reason in zip(paths, reasons, strict=True) if reason]
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise DotsZooError(f"predict: cannot read {', '.join(bad[:NAMED])}{more}; leave it out, or mend it")
    return paths


def _checked(out: Path | None, sheet: Path | None, images: Sequence[str]) -> _Outputs:
    """Refuse outputs that cannot be written or are among the images, and a sheet of too many."""
    sources = {os.path.realpath(path) for path in images}
    for path in (out, sheet):
        if path is None:
            continue
        check_output(path)
        if str(follow_links(path)) in sources:
            raise DotsZooError(f"{path}: expected a new file, got one of the images; name another")
    if sheet is not None and sheet.suffix.lower() not in SUFFIXES:
        raise DotsZooError(f"{sheet}: expected a picture, {' or '.join(SUFFIXES)}, got {sheet.suffix!r}")
    if sheet is not None and len(images) > MOST_IMAGES:
        raise DotsZooError(
            f"{sheet}: expected at most {MOST_IMAGES:,} images on a contact sheet, got {len(images):,}; "
            "leave it out, or predict them in parts"
        )
    return _Outputs(out, sheet)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


def _prepare(path: str, facts: Input, with_thumbnail: bool) -> tuple[Tensor, Image.Image | None]:
    """Return the pixels of a network's input, uint8 (C, H, W), and a small picture of the whole image."""
    try:
        with Image.open(path) as file:
            image = rgb(file) if facts.size[0] == 3 else file.convert("L")
    except UNREADABLE as error:
        raise DotsZooError(
            f"predict: {path} cannot be decoded ({error}); leave it out, or mend it"
        ) from error
    return pixels_of(image, facts), thumbnail(image) if with_thumbnail else None


def pixels_of(image: Image.Image, facts: Input) -> Tensor:
    """Return the centre crop of an image as uint8 (C, H, W), as in evaluation where it is square."""
    _, height, width = facts.size
    if height == width:
        return middle_view(image, height, facts.crop_pct, facts.interpolation)
    scale = max(height / image.height, width / image.width) / facts.crop_pct
    sides = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
    resized = F.resize(image, sides, F.InterpolationMode(facts.interpolation))
    pixels: Tensor = F.pil_to_tensor(F.center_crop(resized, [height, width]))
    return pixels


def _probabilities(classifier: Classifier, pixels: Tensor) -> Tensor:
    """Return the probabilities (N, classes) of images, uint8 (N, C, H, W)."""
    with torch.inference_mode():
        logits = classifier.run(normalise(pixels, classifier.input))
    return logits.softmax(1)


def _answers(classifier: Classifier, probabilities: Tensor, top: int) -> list[dict[str, Any]]:
    """Return the `top` most probable classes of one image, probabilities (classes,)."""
    values, indices = probabilities.topk(min(top, len(probabilities)))
    return [
        {"class": classifier.class_name(index), "index": index, "probability": round(value, 6)}
        for value, index in zip(values.tolist(), indices.tolist(), strict=True)
    ]
