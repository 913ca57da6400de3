"""Check that the data fit the config before anything is written, and count what would be skipped silently.

Annotations in COCO's format are read whole. Of label images only the names are looked at here: `CheckLabels`,
a step that goes into the pipelines, looks at the values as they are read.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, TRANSFORMS

from ..runtime.errors import DotsZooError

VOID = 255  # mmseg's label for pixels that neither train nor count


def check_data(cfg: Any, loaders: Iterable[str]) -> list[str]:
    """Check the data of dataloaders such as 'train_dataloader'; return a sentence on each thing left out.

    Raises DotsZooError where a folder, a file, a class or a category does not fit the config.
    """
    notes = []
    for loader in loaders:
        dataset = dataset_of(cfg, loader)
        names = class_names(cfg, loader)
        _check_heads(cfg.model, names, loader)
        if dataset.type.endswith("CocoDataset"):
            notes += _check_coco(dataset, names, train=loader.startswith("train"))
        elif cfg.default_scope == "mmseg":
            _check_label_images(cfg, dataset)
            _add_label_check(dataset, len(names))
    return notes


def dataset_of(cfg: Any, loader: str) -> Any:
    """Return a dataloader's data set, without what is wrapped around it."""
    dataset = cfg[loader].dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    return dataset


def class_names(cfg: Any, loader: str = "test_dataloader") -> list[str]:
    """Return the classes of a config's data set: its metainfo's, else those of the data set's type."""
    dataset = dataset_of(cfg, loader)
    names = (dataset.get("metainfo") or {}).get("classes")
    if names is None:
        with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
            names = getattr(registry.get(dataset.type), "METAINFO", {}).get("classes")
    if not names:
        raise DotsZooError(f"{loader}: {dataset.type} has no classes: set dataset.metainfo.classes")
    return [str(name) for name in names]


def _check_heads(model: Any, names: Sequence[str], loader: str) -> None:
    """Check that every head has as many classes as the data."""
    auxiliary = model.get("auxiliary_head") or []
    auxiliary = [auxiliary] if isinstance(auxiliary, Mapping) else auxiliary
    heads = {"bbox_head": model.get("bbox_head"), "decode_head": model.get("decode_head")}
    heads |= {f"auxiliary_head[{i}]": head for i, head in enumerate(auxiliary)}
    for name, head in heads.items():
        if head and head.get("num_classes", len(names)) != len(names):
            raise DotsZooError(
                f"config: model.{name}.num_classes is {head.num_classes}, but {loader} has {len(names)} "
                f"classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}): make them equal"
            )


def _join(root: str | None, path: str) -> Path:
    return Path(root or "") / path


def _absent(role: str, path: Path) -> DotsZooError:
    """Return the error for a missing path, which lists the nearest folder that exists."""
    nearest = path.parent
    while not nearest.is_dir() and nearest != nearest.parent:
        nearest = nearest.parent
    entries = sorted(p.name + "/" * p.is_dir() for p in nearest.iterdir())
    listed = ", ".join(entries[:8]) + (f", ... {len(entries)} in all" if len(entries) > 8 else "")
    return DotsZooError(
        f"{role}: {path} does not exist; {nearest.resolve()} holds {listed or 'nothing'}: pass the folder "
        "with --data-root"
    )


def _check_coco(dataset: Any, names: Sequence[str], *, train: bool) -> list[str]:
    """Check annotations in COCO's format against the classes; return a sentence on each thing left out."""
    path = _join(dataset.get("data_root"), dataset.ann_file)
    if not path.is_file():
        raise _absent("annotations", path)
    try:
        table = json.loads(path.read_text("utf-8"))
        images = {image["id"]: image for image in table["images"]}
        boxes = [(a["image_id"], a["category_id"], a["bbox"][2], a["bbox"][3]) for a in table["annotations"]]
        categories = {category["id"]: category["name"] for category in table["categories"]}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DotsZooError(
            f"{path}: expected annotations in COCO's format (images, annotations, categories), got "
            f"{type(error).__name__}: {error}"
        ) from None
    if not images or (train and not boxes):
        raise DotsZooError(
            f"{path}: expected images and boxes, got {len(images)} images and {len(boxes)} boxes"
        )
    _check_categories(path, names, categories, boxes)
    _check_images(_join(dataset.get("data_root"), dataset.data_prefix.img), images.values(), path)
    return [
        f"{path.name}: {note}" for note in _left_out(dataset, names, categories, images, boxes, train=train)
    ]


Box = tuple[int, int, float, float]  # image id, category id, width, height


def _check_categories(
    path: Path, names: Sequence[str], categories: Mapping[int, str], boxes: Sequence[Box]
) -> None:
    """Check that the file's categories hold the config's classes in their order, and every box's."""
    listed = list(categories.values())
    missing = [name for name in names if name not in listed]
    if missing:
        raise DotsZooError(
            f"{path}: no category {', '.join(map(repr, missing))}, which the config's classes have; the "
            f"file's are {', '.join(map(repr, listed))}: set dataset.metainfo.classes"
        )
    order = [name for name in listed if name in names]
    if order != list(names):  # mmdet numbers the classes in the file's order
        raise DotsZooError(
            f"{path}: its categories are in another order than the config's classes, which would swap "
            f"labels: set dataset.metainfo.classes to {order}"
        )
    unknown = Counter(category for _, category, _, _ in boxes if category not in categories)
    if unknown:
        (first, count), *_ = unknown.most_common()
        raise DotsZooError(
            f"{path}: {unknown.total()} boxes have a category id that is not among its categories (first: "
            f"{count} of {first}); there are {sorted(categories)}"
        )


def _check_images(folder: Path, images: Iterable[Mapping[str, Any]], path: Path) -> None:
    if not folder.is_dir():
        raise _absent("images", folder)
    names = [image["file_name"] for image in images]
    there = {entry.name for entry in folder.iterdir()}
    missing = [name for name in names if name not in there and not (folder / name).is_file()]
    if missing:
        raise DotsZooError(
            f"{folder}: {len(missing)} of {len(names)} images of {path.name} are not there (first: "
            f"{missing[0]}): set dataset.data_prefix.img"
        )


def _left_out(
    dataset: Any,
    names: Sequence[str],
    categories: Mapping[int, str],
    images: Mapping[int, Mapping[str, Any]],
    boxes: Sequence[Box],
    *,
    train: bool,
) -> list[str]:
    """Return a sentence on the boxes and images that mmdet would leave out silently."""
    notes = []
    others = Counter(categories[category] for _, category, _, _ in boxes if categories[category] not in names)
    if others:
        listed = ", ".join(f"{count} {name}" for name, count in others.most_common(5))
        notes.append(f"{others.total()} boxes of other classes are left out ({listed})")
    thin = sum(width < 1 or height < 1 for _, _, width, height in boxes)
    if thin:
        notes.append(f"{thin} boxes narrower than a pixel are left out")
    smallest = (dataset.get("filter_cfg") or {}).get("min_size", 0) if train else 0
    small = sum(min(image["width"], image["height"]) < smallest for image in images.values())
    if small:
        notes.append(f"{small} images smaller than {smallest} pixels are left out")
    return notes


def _check_label_images(cfg: Any, dataset: Any) -> None:
    """Check that every image has a label image, by the data set's own rules for names."""
    folders = {key: _join(dataset.get("data_root"), path) for key, path in dataset.data_prefix.items()}
    for key, folder in folders.items():
        if not folder.is_dir():
            raise _absent({"img_path": "images", "seg_map_path": "labels"}.get(key, key), folder)
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        listed = registry.build({**dataset, "pipeline": [], "serialize_data": False}).data_list
    if not listed:
        entries = ", ".join(sorted(path.name for path in folders["img_path"].iterdir())[:3]) or "nothing"
        raise DotsZooError(
            f"{folders['img_path']}: no image of {dataset.type} is there; the folder holds {entries}: set "
            "dataset.img_suffix"
        )
    missing = [item["seg_map_path"] for item in listed if not Path(item["seg_map_path"]).is_file()]
    if missing:
        raise DotsZooError(
            f"{folders['seg_map_path']}: {len(missing)} of {len(listed)} images have no label image (first: "
            f"{missing[0]})"
        )


def _add_label_check(dataset: Any, classes: int) -> None:
    steps = list(dataset.pipeline)
    at = next(i for i, step in enumerate(steps) if step["type"] == "LoadAnnotations")
    if steps[at + 1]["type"] != "CheckLabels":
        dataset.pipeline = [*steps[: at + 1], {"type": "CheckLabels", "classes": classes}, *steps[at + 1 :]]


@TRANSFORMS.register_module()
class CheckLabels:
    """Refuse a label image with a value that is neither a class nor void; a GPU's loss would only stop."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        labels = results["gt_seg_map"]  # (H, W)
        wrong = sorted(set(labels[(labels >= self.classes) & (labels != VOID)].tolist()))
        if wrong:
            raise DotsZooError(
                f"{results['seg_map_path']}: label values {wrong[:5]}: expected 0 to {self.classes - 1}, or "
                f"{VOID} for void"
            )
        return results
