"""Where predictions are drawn to: never over an image that is given, nor over what anybody else wrote."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from dots_zoo.commands.cli import main
from dots_zoo.openmm.progress import quiet

with quiet():
    from dots_zoo.openmm.config import build_model
    from helpers.tiny_mm import SIDE, write_config

Predict = Callable[..., int]


@pytest.fixture(scope="module", params=["det", "seg"])
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def predict(task: str, tmp_path_factory: pytest.TempPathFactory) -> Predict:
    """The command for a tiny network: images, and the folder behind them."""
    folder = tmp_path_factory.mktemp(task)
    config, weights = write_config(folder / "tiny.py", task, 1), folder / "tiny.pth"
    torch.manual_seed(0)
    with quiet():
        torch.save({"state_dict": build_model(config, task).state_dict()}, weights)

    def run(*words: Path | str) -> int:
        *images, out = map(str, words)
        return main([task, "predict", str(config), str(weights), *images, "-o", out, "--score", "0"])

    return run


def photo(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), colour).save(path)
    return path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("dots-zoo: error: ")
    return line.removeprefix("dots-zoo: error: ")


@pytest.mark.parametrize("linked", [False, True])
def test_a_photo_stays_where_its_folder_is_the_output(
    linked: bool, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat, out = photo(tmp_path / "photos/cat.png"), tmp_path / "photos"
    if linked:
        out = tmp_path / "drawn"
        out.mkdir()
        (out / "cat.png").symlink_to(cat)
    before = contents(tmp_path)
    assert predict(cat, out) == 2
    told = refusal(capsys)
    assert told.startswith(f"{out / 'cat.png'}: ") and "another folder with -o" in told
    assert contents(tmp_path) == before


def test_a_drawing_that_is_given_stays_too(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a file of an earlier prediction, and now a photo like any other."""
    out = tmp_path / "drawn"
    assert predict(photo(tmp_path / "cat.jpg"), out) == 0
    before = contents(out)
    assert predict(out / "cat.png", out) == 2
    assert "the images that are given" in refusal(capsys) and contents(out) == before


def test_files_of_anybody_else_are_named_and_stay(
    task: str, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat = photo(tmp_path / "in/cat.jpg")
    for name in ["cat.png", "predictions.json", *(["cat_labels.png"] if task == "seg" else [])]:
        out = tmp_path / name
        out.mkdir()
        if name == "predictions.json":
            (out / name).write_text('{"mine": 1}')
        else:
            photo(out / name)
        before = contents(out)
        assert predict(cat, out) == 2
        told = refusal(capsys)
        assert told.startswith(f"{out / name}: expected a new file or one of an earlier prediction")
        assert contents(out) == before


def test_an_earlier_prediction_is_replaced(predict: Predict, tmp_path: Path) -> None:
    cat, out = photo(tmp_path / "cat.jpg", "red"), tmp_path / "drawn"
    assert predict(cat, out) == 0
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    photo(cat, "blue")
    assert predict(cat, out) == 0
    after = contents(out)
    assert after.keys() == before.keys() and after[out / "cat.png"] != before[out / "cat.png"]
    assert after[out / "notes.txt"] == b"mine"
    assert [entry["image"] for entry in json.loads(after[out / "predictions.json"])] == [str(cat)]


def test_two_images_of_one_name_do_not_replace_each_other(
    task: str, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("a/cat.jpg", "b/cat.jpg"), ("a/cat.jpg", "a/cat.png")]
    pairs += [("a/cat.jpg", "b/cat_labels.png")] if task == "seg" else []
    for names in pairs:
        images, out = [photo(tmp_path / name) for name in names], tmp_path / "drawn"
        assert predict(*images, out) == 2
        told = refusal(capsys)
        assert all(str(image) in told for image in images) and f"drawn to {out / 'cat'}" in told
        assert not out.exists()


def test_an_output_that_is_a_file_is_refused(
    predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat, out = photo(tmp_path / "cat.jpg"), tmp_path / "file"
    out.write_text("mine")
    assert predict(cat, out) == 2
    assert refusal(capsys).startswith(f"{out}/cat.png: cannot be written (Not a directory)")
    assert out.read_text() == "mine"
