"""Prediction: which files are meant, the same answers from a network and its ONNX file, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from dots_zoo.commands.cli import main
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train import Predictions, predict, train
from dots_zoo.train.classifier import Input, chosen_device
from dots_zoo.train.prediction import image_files, pixels_of
from helpers.photo_folder import photo, photo_folder

RECIPE = {"epochs": 6, "batch_size": 8, "learning_rate": 0.1, "aux_weight": 0.0, "drop_path_rate": 0.0}
CALM = {"min_scale": 0.8, "colour_jitter": 0.0, "cutout": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photo_folder(tmp_path_factory.mktemp("own") / "photos")


@pytest.fixture(scope="module")
def net(photos: Path) -> Path:
    own = {"data": "image_folder", "data_root": photos, "image_size": 16, "channels": 4, "layers": 3}
    out = photos.parent / "net"
    return train("darts_v1", out=out, quiet=True, augmentation=CALM, **own, **RECIPE).path


@pytest.fixture(scope="module")
def exported(net: Path) -> Path:
    path = net.parent / "net.onnx"
    assert main(["export", str(net), "--exporter", "torchscript", "-o", str(path)]) == 0
    return path


def test_it_answers_as_the_evaluation_does_with_names_and_probabilities(net: Path, photos: Path) -> None:
    predictions = predict(net, photos / "val", top=9, batch_size=4)
    data = load_data(DataOptions(data="image_folder", data_root=str(photos), image_size=16))
    assert [row["image"] for row in predictions.rows] == list(data.test_paths)  # type: ignore[attr-defined]
    right = 0
    for row, label in zip(predictions.rows, data.test_labels.tolist(), strict=True):
        assert {answer["class"] for answer in row["answers"]} == {"blue", "green", "red"}
        assert sum(answer["probability"] for answer in row["answers"]) == pytest.approx(1, abs=1e-5)
        shares = [answer["probability"] for answer in row["answers"]]
        assert shares == sorted(shares, reverse=True)
        assert all(data.class_names[answer["index"]] == answer["class"] for answer in row["answers"])
        right += row["answers"][0]["index"] == label
    run = json.loads((net / "run.json").read_text())
    assert right == round(run["score"]["accuracy"] * 9) >= 6  # of nine, where chance is three


@pytest.mark.parametrize("batch", ["batch", "none"])
def test_a_network_and_its_onnx_file_give_the_same_answers(
    batch: str, net: Path, exported: Path, photos: Path, tmp_path: Path
) -> None:
    path = exported
    if batch == "none":
        path = tmp_path / "one.onnx"
        words = ["--exporter", "torchscript", "--dynamic", "none", "-o", str(path)]
        assert main(["export", str(net), *words]) == 0
    expected, answers = predict(net, photos, batch_size=5), predict(path, photos, batch_size=5)
    assert len(answers.rows) == 33
    for mine, theirs in zip(expected.rows, answers.rows, strict=True):
        assert mine["image"] == theirs["image"]
        by_class = {answer["class"]: answer["probability"] for answer in theirs["answers"]}
        assert by_class == pytest.approx({a["class"]: a["probability"] for a in mine["answers"]}, abs=1e-4)


def test_the_command_writes_json_and_a_sheet(
    net: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "predictions.json", tmp_path / "sheet.png"
    globbed = f"{photos}/val/*/0.png"
    capsys.readouterr()
    assert main(["predict", str(net), globbed, "--top", "1", "-o", str(out), "--sheet", str(sheet)]) == 0
    lines = capsys.readouterr().out.splitlines()
    written = json.loads(out.read_text())
    assert written["kind"] == "predictions" and len(written["rows"]) == len(lines) == 3
    first = written["rows"][0]
    [answer] = first["answers"]
    expected = f"{photos}/val/blue/0.png: {answer['class']} {100 * answer['probability']:.1f} %"
    assert lines[0] == expected
    with Image.open(sheet) as picture:
        assert picture.size == (12 + 2 * 172, 12 + 2 * 194)
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[12:172, 12:172] == [30, 60, 220]).all(-1).mean() > 0.3  # the first photo, of blue
    assert (pixels[172:194, 12:172].min(-1) < 120).any()  # its caption
    assert main(["predict", str(net), globbed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["answers"][0] == answer


def test_files_folders_and_globs_are_meant_once_each(photos: Path, tmp_path: Path) -> None:
    folder, one = photos / "val" / "red", photos / "val" / "red" / "1.png"
    expected = [str(folder / f"{index}.png") for index in range(3)]
    assert image_files([folder]) == image_files([f"{folder}/*.png"]) == expected
    assert image_files([one, folder, one]) == [expected[1], expected[0], expected[2]]
    assert len(image_files([photos])) == 33 and len(image_files([f"{photos}/**/2.png"])) == 6
    bracket = tmp_path / "a[1].png"  # a file whose name looks like a glob
    photo("red", 0).save(bracket)
    assert image_files([bracket]) == [str(bracket)]


def test_digits_are_grey_and_of_their_own_size(tmp_path: Path) -> None:
    digits = {"data": "digits", "channels": 2, "layers": 3, "batch_size": 256, "epochs": 1}
    recipe = {"aux_weight": 0.0, "drop_path_rate": 0.0}
    training = train("darts_v1", out=tmp_path / "net", quiet=True, **digits, **recipe)
    data: Any = load_data(DataOptions())
    Image.fromarray(data.test_images[3, 0].numpy()).convert("RGB").save(tmp_path / "digit.png")
    [row] = predict(training.path, tmp_path / "digit.png", top=10).rows
    with torch.no_grad():
        network: Any = training.model().eval()
        expected = network(data.test_batch(torch.tensor([3]))).softmax(1)[0]
    for answer in row["answers"]:
        assert answer["class"] == str(answer["index"])
        assert answer["probability"] == pytest.approx(expected[answer["index"]].item(), abs=1e-5)


def test_an_image_is_cropped_to_a_graph_that_is_not_square() -> None:
    facts = Input((3, 20, 30), (0.5,) * 3, (0.5,) * 3, 0.5, "bilinear")
    image = Image.new("RGB", (120, 90), "black")
    image.paste((255, 255, 255), (30, 30, 90, 60))
    pixels = pixels_of(image, facts)
    assert pixels.shape == (3, 20, 30) and pixels[:, 10, 15].min() == 255
    assert pixels[:, 0, 15].max() == 0


def bad_onnx(path: Path, content: bytes | None = None, **changes: str | None) -> Path:
    """Copy an ONNX file with other metadata, or write what is none."""
    target = path.with_name("bad.onnx")
    if content is not None:
        target.write_bytes(content)
        return target
    model = onnx.load(str(path))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    kept = {key: value for key, value in {**facts, **changes}.items() if value is not None}
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, str(target))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "detect"}, "expected a classifier, got a file of the task detect; .*dots-zoo det predict"),
        ({"mean": None}, "in the file's metadata, as dots-zoo export writes them, got no mean; export the"),
        ({"std": "[0.5"}, "its metadata cannot be read: .*; export the network again"),
        (
            {"input_size": "[4, 16, 16]"},
            r"expected a network of grey \(1 channel\) or RGB images \(3\), got 4",
        ),
        ({"content": b"no graph"}, "ONNX Runtime cannot run this file"),
    ],
)
def test_a_file_that_cannot_predict_is_one_sentence(
    changes: dict[str, Any], message: str, exported: Path, photos: Path
) -> None:
    path = bad_onnx(exported, **changes)
    with pytest.raises(DotsZooError, match=f"^{path}: .*{message}") as caught:
        predict(path, photos / "val")
    assert "\n" not in str(caught.value)


def refused(network: Path, images: Any, **options: Any) -> str:
    with pytest.raises(DotsZooError) as caught:
        predict(network, images, **options)
    return str(caught.value)


def test_what_does_not_fit_is_refused_before_anything_is_written(
    net: Path, photos: Path, tmp_path: Path
) -> None:
    good, broken, cut = photo("red", 7), tmp_path / "broken.png", tmp_path / "cut.png"
    good.save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    broken.write_text("no image")
    out, sheet = tmp_path / "out.json", tmp_path / "sheet.png"
    files = {"out": out, "sheet": sheet}
    sentence = refused(net, tmp_path, **files)
    assert sentence == f"predict: cannot read {broken} (no image); leave it out, or mend it"
    broken.unlink()
    cut.write_bytes(content[: len(content) // 2])
    assert refused(net, tmp_path, **files).startswith(f"predict: {cut} cannot be decoded (")
    cut.unlink()
    assert not out.exists() and not sheet.exists()
    assert "got 'nowhere.png': nothing there" in refused(net, "nowhere.png")
    (tmp_path / "empty").mkdir()
    assert "empty': a folder without any" in refused(net, tmp_path / "empty")
    assert "expected a new file, got one of the images" in refused(net, tmp_path, sheet=tmp_path / "good.png")
    assert "expected a picture, .png or .jpg" in refused(net, tmp_path, sheet=tmp_path / "sheet.txt")
    assert "in an existing, writable folder" in refused(net, tmp_path, out=tmp_path / "no" / "out.json")
    assert refused(net, tmp_path, top=0) == "top: expected 1 or more, got 0"
    assert "expected cpu, cuda or cuda:N, got 'gpu'" in refused(net, tmp_path, device="gpu")
    assert refused(net.parent / "net5.onnx", photos).startswith(
        f"{net.parent / 'net5.onnx'}: expected an ONNX file, got nothing there"
    )
    assert refused(Path("darts_v1"), photos).startswith("darts_v1 has no pretrained weights")
    assert (tmp_path / "good.png").read_bytes() == content


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(DotsZooError, match="device: cuda:1 is not there: torch finds 1 GPUs; leave it out"):
        chosen_device("cuda:1")
    assert chosen_device("cuda:0") == torch.device("cuda:0") and chosen_device("cpu") == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_answers_of_the_processor(net: Path, photos: Path) -> None:
    left, right = (predict(net, photos, device=device) for device in ("cuda", "cpu"))
    assert isinstance(left, Predictions) and len(left.rows) == len(right.rows)
    for mine, theirs in zip(left.rows, right.rows, strict=True):
        assert mine["answers"][0]["probability"] == pytest.approx(
            theirs["answers"][0]["probability"], abs=1e-2
        )
