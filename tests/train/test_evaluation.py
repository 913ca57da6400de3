"""An evaluation: figures by class counted by hand, the files it writes, what it prints, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from dots_zoo.commands.cli import main
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train import Evaluation, evaluate, train
from dots_zoo.train.score import Score, score, score_by_class
from helpers.striped_images import shades

DIGITS = {"channels": 2, "layers": 3, "batch_size": 256, "epochs": 1, "aux_weight": 0.0}


class Thirds(torch.nn.Module):
    """Answers the class of a shade below 10, below 20 or above, of three."""

    def forward(self, images: Tensor) -> Tensor:
        shade = ((images[:, 0, 0, 0] * 0.3 + 0.4) * 255).round()
        return torch.nn.functional.one_hot((shade / 10).long().clamp(max=2), 3).float()


def test_the_confusion_is_that_counted_by_hand() -> None:
    labels = torch.tensor([0] * 8 + [1] * 14 + [2] * 8)
    images = shades(30).images
    data = replace(shades(30), test_images=images, test_labels=labels, classes=3)
    result, confusion = score_by_class(Thirds(), data, Accelerator(), batch_size=7)
    # Shades 0 to 9 are answered 0, to 19 1, to 29 2.
    assert confusion.tolist() == [[8, 0, 0], [2, 10, 2], [0, 0, 8]]
    assert result.accuracy == 26 / 30 and result.images == 30 and result.top5 is None
    again = score(Thirds(), data, Accelerator())
    assert again.accuracy == result.accuracy and again.loss == pytest.approx(result.loss, rel=1e-6)
    evaluation = Evaluation(
        "net", "shades", 8, result, ("low", "middle", "high"), ((8, 0, 0), (2, 10, 2), (0, 0, 8))
    )
    low, middle, high = evaluation.rows
    assert middle == {
        "class": "middle",
        "images": 14,
        "hits": 10,
        "accuracy": 10 / 14,
        "taken_for": "low",
        "taken_for_images": 2,
    }
    assert low["accuracy"] == high["accuracy"] == 1 and low["taken_for"] is None
    assert evaluation.lines == [
        f"net: 86.67 % of 30 test images of shades at 8x8 (loss {result.loss:.4f})",
        "  low    100.00 % of 8",
        "  middle  71.43 % of 14, 2 taken for low",
        "  high   100.00 % of 8",
    ]


def test_of_many_classes_the_worst_are_printed_and_a_class_without_images_is_none() -> None:
    classes = 30
    confusion = [[0] * classes for _ in range(classes)]
    for label in range(classes - 1):
        confusion[label][label], confusion[label][0] = label, confusion[label][0] + 29 - label
    names = tuple(f"c{label}" for label in range(classes))
    result = Score(100, 1.0, 0.5, 0.9)
    evaluation = Evaluation("net", "x", 8, result, names, tuple(map(tuple, confusion)))
    head, title, *rows = evaluation.lines
    assert (
        head.endswith("(top five: 90.00 %, loss 1.0000)")
        and "10 classes with the lowest accuracy of 30" in title
    )
    assert [row.split()[0] for row in rows] == [f"c{label}" for label in range(1, 11)]
    assert evaluation.rows[29]["accuracy"] is None and not any("c29" in row for row in rows)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("darts_v1", out=tmp_path_factory.mktemp("eval") / "net", quiet=True, **DIGITS).path


def test_the_command_writes_json_and_the_picture(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "e.json", tmp_path / "c.png"
    capsys.readouterr()
    assert main(["eval", str(net), "--json", "-o", str(out), "--confusion", str(picture)]) == 0
    printed, written = json.loads(capsys.readouterr().out), json.loads(out.read_text())
    assert printed == written and written["kind"] == "evaluation"
    final = json.loads((net / "run.json").read_text())["score"]
    assert written["score"] == pytest.approx(final, rel=1e-5) and "top5" in final
    confusion = torch.tensor(written["confusion"])
    assert confusion.shape == (10, 10) and confusion.sum() == 355
    assert confusion.trace().item() == round(355 * written["score"]["accuracy"])
    assert [row["class"] for row in written["classes"]] == [str(digit) for digit in range(10)]
    with Image.open(picture) as image:
        assert image.size[0] > 600 and len(image.convert("L").getcolors(256) or []) > 20
    evaluation = evaluate(net, confusion=tmp_path / "c.svg")
    assert evaluation.picture == tmp_path / "c.svg" and "<svg" in (tmp_path / "c.svg").read_text()
    assert evaluation.confusion == tuple(map(tuple, written["confusion"])) and evaluation.path is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confusion": "c.txt"}, "c.txt: expected a picture, .png or .svg or .pdf, got '.txt'"),
        ({"out": "no/e.json"}, "in an existing, writable folder"),
        ({"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"batchsize": 2}, "no such argument: batchsize .did you mean batch_size"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, object], message: str, net: Path) -> None:
    with pytest.raises(DotsZooError, match=message):
        evaluate(net, **options)
