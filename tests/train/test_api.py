"""The functions of Python take what the commands take, by the same names, and say what is wrong alike."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dots_zoo.data.augment import Augmentation
from dots_zoo.data.datasets import DataOptions
from dots_zoo.runtime.config import build
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train import evaluate, predict, train
from dots_zoo.train.api import eval_line, predict_line, train_line
from dots_zoo.train.model import ModelOptions
from dots_zoo.train.recipe import Recipe

NUMBERS = {
    "epochs": 7,
    "validation": 0.25,
    "precision": "bf16",
    "augmentation": {"cutout": 3, "flip": True},
    "data": "cifar10",
    "data_root": Path("data"),
    "channels": 4,
    "pretrained": True,
}
WORDS = (
    "--epochs 7 --validation 0.25 --precision bf16 --augmentation.cutout 3 --augmentation.flip true "
    "--data cifar10 --data-root data --channels 4 --pretrained"
)


def test_arguments_are_the_options_of_the_command_line() -> None:
    parsed = train_line().parse(["darts_v1", "-o", "net", *WORDS.split()])
    python = train_line().parse_values({"network": "darts_v1", "out": Path("net"), **NUMBERS})
    assert parsed == python
    assert build(Recipe, python) == Recipe(
        epochs=7, validation=0.25, precision="bf16", augmentation=Augmentation(cutout=3, flip=True)
    )
    assert build(DataOptions, python) == DataOptions("cifar10", "data")
    assert build(ModelOptions, python) == ModelOptions(channels=4, pretrained=True)
    assert isinstance(train_line().parse(["a", "-o", "b", "--validation", "5000"])["validation"], int)


def test_every_field_is_an_option() -> None:
    own = {"network", "out", "preset", "resume", "checkpoint_seconds", "quiet"}
    records: tuple[Any, ...] = (DataOptions, ModelOptions, Recipe)
    named = {field.name for record in records for field in fields(record)} - {"augmentation"}
    named |= {f"augmentation.{field.name}" for field in fields(Augmentation)}
    assert set(train_line().names) == own | named
    expected = {field.name for record in records[:2] for field in fields(record)}
    assert set(eval_line().names) == expected | {"network", "out", "confusion", "batch_size", "json", "quiet"}
    assert set(predict_line().names) == {*inspect.signature(predict).parameters, "json"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda out: train("darts_v1", out=out, epoch=3),
            r"no such argument: epoch \(did you mean epochs\?\)",
        ),
        (
            lambda out: train("darts_v1", out=out, epochs="many"),
            "epochs: expected a whole number, got 'many'",
        ),
        (lambda out: train("darts_v1", out=out, preset="small"), "preset: expected one of .*, got 'small'"),
        (lambda out: train("darts_v1", out=out, validation="some"), "validation: expected a whole number or"),
        (lambda out: train("darts_v1", out=out, data="cifar"), "data: expected one of .*, got 'cifar'"),
        (lambda out: evaluate("darts_v1", sheet="a.png"), "no such argument: sheet"),
        (lambda out: evaluate("darts_v7"), r"unknown model 'darts_v7' \(nearest: darts_v2"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(
    call: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DotsZooError, match=message) as caught:
        call(tmp_path / "net")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []
