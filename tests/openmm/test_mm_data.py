"""Data that do not fit a config: one sentence each, or a count of what is left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dots_zoo import DotsZooError
from dots_zoo.openmm.progress import quiet

with quiet():
    from dots_zoo.openmm.bisenet import VOID, CamVidDataset, WeightedCrossEntropy
    from dots_zoo.openmm.check_data import check_data, class_names
    from dots_zoo.openmm.config import load_config
    from dots_zoo.openmm.run import train
    from helpers.tiny_mm import make_camvid, make_coco, write_config

SPLITS = {"train": 4, "val": 2}
LOADERS = ("train_dataloader", "val_dataloader")
Table = dict[str, Any]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return make_coco(tmp_path / "data", SPLITS)


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return make_camvid(tmp_path / "data", SPLITS)


def config(tmp_path: Path, task: str, *options: str) -> Any:
    path = write_config(tmp_path / "tiny.py", task, 1)
    return load_config(path, task, data_root=str(tmp_path / "data"), options=options)


def change(root: Path, edit: Callable[[Table], object]) -> None:
    path = root / "instances_train.json"
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))


def test_data_that_fit_leave_nothing_out(tmp_path: Path, coco: Path) -> None:
    assert check_data(config(tmp_path, "det"), LOADERS) == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.clear(), r"expected annotations in COCO's format .* got KeyError: 'images'"),
        (lambda t: t["annotations"].clear(), "expected images and boxes, got 4 images and 0 boxes"),
        (lambda t: t["annotations"][0].update(category_id=9), r"1 boxes have .* \(first: 1 of 9\)"),
        (lambda t: t["categories"].pop(), "no category 'disc', which the config's classes have"),
        (lambda t: t["categories"].reverse(), r"swap labels: set .*classes to \['disc', 'square'\]"),
        (lambda t: t["images"][1].update(file_name="gone.jpg"), r"1 of 4 images .* \(first: gone.jpg\)"),
    ],
)
def test_annotations_that_do_not_fit(
    tmp_path: Path, coco: Path, edit: Callable[[Table], object], message: str
) -> None:
    change(coco, edit)
    with pytest.raises(DotsZooError, match=message):
        train(config(tmp_path, "det"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_and_folders_that_are_not_there(tmp_path: Path, coco: Path) -> None:
    cfg = config(tmp_path, "det", "train_dataloader.dataset.ann_file=annotations/train.json")
    message = r"annotations/train.json does not exist; .*data holds images/, instances_train.json"
    with pytest.raises(DotsZooError, match=message):
        check_data(cfg, LOADERS)
    (coco / "instances_train.json").write_text("")
    with pytest.raises(DotsZooError, match="instances_train.json: expected annotations .* JSONDecodeError"):
        check_data(config(tmp_path, "det"), LOADERS)
    (coco / "images").rename(coco / "JPEGImages")
    with pytest.raises(DotsZooError, match="images: .*data/images does not exist; .* holds JPEGImages/"):
        check_data(config(tmp_path, "det"), ("val_dataloader",))


def test_what_is_left_out_is_counted(tmp_path: Path, coco: Path) -> None:
    def edit(table: Table) -> None:
        table["categories"].append({"id": 9, "name": "star"})
        first, second, third, *_ = table["annotations"]
        first["category_id"] = second["category_id"] = 9
        third["bbox"][2] = 0
        table["images"][3]["width"] = 20

    change(coco, edit)
    assert check_data(config(tmp_path, "det"), LOADERS) == [
        "instances_train.json: 2 boxes of other classes are left out (2 star)",
        "instances_train.json: 1 boxes narrower than a pixel are left out",
        "instances_train.json: 1 images smaller than 32 pixels are left out",
    ]


def test_heads_have_as_many_classes_as_the_data(tmp_path: Path, coco: Path) -> None:
    cfg = config(tmp_path, "det", "model.bbox_head.num_classes=80")
    message = r"model.bbox_head.num_classes is 80, but train_dataloader has 2 classes \(square, disc\)"
    with pytest.raises(DotsZooError, match=message):
        check_data(cfg, LOADERS)


@pytest.mark.parametrize("task", ["det", "seg"])
def test_the_classes_are_the_config_s_or_the_data_set_s(tmp_path: Path, task: str) -> None:
    cfg = config(tmp_path, task)
    assert class_names(cfg) == (["square", "disc"] if task == "det" else ["Sky", "Building"])
    del cfg.test_dataloader.dataset["metainfo"]
    assert len(class_names(cfg)) == (80 if task == "det" else 11)


def test_label_images_that_are_not_there(tmp_path: Path, camvid: Path) -> None:
    (camvid / "train/labels/2.png").unlink()
    with pytest.raises(DotsZooError, match=r"1 of 4 images have no label image \(first: .*labels/2.png"):
        check_data(config(tmp_path, "seg"), LOADERS)
    (camvid / "val/labels").rename(camvid / "val/annot")
    with pytest.raises(DotsZooError, match="labels: .* does not exist; .*val holds annot/, images/"):
        check_data(config(tmp_path, "seg"), ("val_dataloader",))
    cfg = config(tmp_path, "seg", "train_dataloader.dataset.img_suffix=.png")
    with pytest.raises(DotsZooError, match="no image of CamVidDataset is there; the folder holds 0.jpg"):
        check_data(cfg, LOADERS)


def test_a_label_outside_the_classes_is_named_when_it_is_read(tmp_path: Path, camvid: Path) -> None:
    for path in camvid.glob("train/labels/*.png"):
        Image.new("L", (64, 64), 13).save(path)
    out = tmp_path / "out"
    with pytest.raises(DotsZooError, match=r"labels/\d.png: label values \[13\]: expected 0 to 1, or 255"):
        train(config(tmp_path, "seg"), out)
    assert not out.exists()


def test_a_batch_of_one_image_is_told(tmp_path: Path, camvid: Path) -> None:
    with pytest.raises(DotsZooError, match="a batch of one image .* set batch_size to 2 or more"):
        train(config(tmp_path, "seg", "train_dataloader.batch_size=1"), tmp_path / "out")


def test_camvid_s_void_and_unused_classes_do_not_count() -> None:
    names = CamVidDataset.METAINFO["classes"]
    assert len(names) == 11 and len(CamVidDataset.METAINFO["palette"]) == 11
    every = CamVidDataset.get_label_map(None)
    assert every == {**{i: i for i in range(11)}, 11: VOID}
    some = CamVidDataset.get_label_map(["Road", "Sky"])
    assert (some[0], some[3], some[1], some[11]) == (1, 0, VOID, VOID)


def test_weighted_cross_entropy_is_the_weighted_mean_over_pixels_that_count() -> None:
    loss = WeightedCrossEntropy([1.0, 3.0])
    logits = torch.tensor([[[[2.0, 0.0, 5.0]], [[0.0, 1.0, 5.0]]]])  # (1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, VOID]]])
    first, second = torch.log1p(torch.exp(torch.tensor([-2.0, -1.0])))  # -log softmax
    torch.testing.assert_close(loss(logits, labels), (first + 3 * second) / 4)
    with pytest.raises(DotsZooError, match="pixel samplers are not supported"):
        loss(logits, labels, weight=torch.ones(1))
