"""The numbers of a training: the schedules by hand, ranges, and what the presets resolve to."""

import math
from dataclasses import replace
from typing import Any

import pytest
import yaml

from dots_zoo.runtime.config import build, dotted, presets_in
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train.api import PRESETS, train_line
from dots_zoo.train.recipe import Recipe, drop_path_rate, image_side, learning_rate

NAMED = presets_in(PRESETS)


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    recipe = Recipe(epochs=5, learning_rate=0.4, warm_up_epochs=1)
    rates = [learning_rate(recipe, step, 4) for step in range(20)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[12] == pytest.approx(0.2)  # half of the sixteen steps that are left
    assert rates[19] == pytest.approx(0.2 * (1 + math.cos(math.pi * 15 / 16)))
    assert learning_rate(replace(recipe, warm_up_epochs=0), 0, 4) == 0.4


def test_warm_up_takes_a_fifth_of_the_epochs_at_most() -> None:
    short = Recipe(epochs=3, learning_rate=0.4, warm_up_epochs=3)
    rates = [learning_rate(short, step, 5) for step in range(15)]
    assert short.warm_up == pytest.approx(0.6) and rates[:4] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4, 0.4])
    assert rates[9] == pytest.approx(0.2) and rates[14] < 0.01  # the cosine has the other twelve steps
    for name, schedule in NAMED.items():
        recipe = Recipe(epochs=schedule["epochs"], warm_up_epochs=schedule["warm_up_epochs"])
        assert recipe.warm_up == recipe.warm_up_epochs, name


def test_drop_path_reaches_its_rate_in_the_last_epoch() -> None:
    rates = [drop_path_rate(Recipe(epochs=3, drop_path_rate=0.4), epoch) for epoch in range(3)]
    assert rates == pytest.approx([0.0, 0.2, 0.4])
    assert drop_path_rate(Recipe(epochs=1), 0) == 0


def test_images_grow_linearly_by_fours() -> None:
    recipe = Recipe(epochs=6, first_size=16, growing_epochs=4)
    assert [image_side(recipe, epoch, 32) for epoch in range(6)] == [16, 20, 24, 28, 32, 32]
    slow = Recipe(epochs=6, first_size=16, growing_epochs=5)  # 19.2, 22.4, 25.6, 28.8 pixels
    assert [image_side(slow, epoch, 32) for epoch in range(6)] == [16, 20, 24, 24, 28, 32]
    assert image_side(Recipe(), 0, 32) == 32
    odd = Recipe(first_size=15, growing_epochs=4)  # 15 and 4.5, 9, 13.5 more
    assert [image_side(odd, epoch, 33) for epoch in range(5)] == [15, 19, 23, 27, 33]
    assert image_side(Recipe(first_size=30, growing_epochs=4), 3, 33) == 33  # never above their own


@pytest.mark.parametrize("numbers", [{"first_size": 16}, {"growing_epochs": 2}])
def test_images_grow_from_a_size_over_epochs(numbers: dict[str, int]) -> None:
    with pytest.raises(DotsZooError, match="first_size and growing_epochs: expected both or neither"):
        Recipe(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs: expected 1 or more, got 0"),
        ("learning_rate", 0.0, "learning_rate: expected more than 0, got 0.0"),
        ("learning_rate", math.nan, "learning_rate: expected more than 0, got nan"),
        ("warm_up_epochs", -1, "warm_up_epochs: expected 0 or more, got -1"),
        ("drop_path_rate", 1.0, "drop_path_rate: expected a probability below 1, got 1.0"),
        ("ema_decay", 1.0, "ema_decay: expected 0 to below 1, got 1.0"),
        ("validation", -1, "validation: expected 0 or more, got -1"),
        ("validation", 2.5, "validation: expected a number of images or a share below 1, got 2.5"),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(DotsZooError, match=message):
        Recipe(**{name: value})


PAPER = {
    "epochs": 600,
    "batch_size": 96,
    "learning_rate": 0.025,
    "warm_up_epochs": 0,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 3e-4,
    "clip": 5.0,
    "drop_path_rate": 0.2,
    "aux_weight": 0.4,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema_decay": 0.0,
    "precision": "no",
    "validation": 0,
    "augmentation.crop_padding": 4,
    "augmentation.flip": None,
    "augmentation.cutout": 16,
    "train_fraction": 1.0,
    "image_size": None,
}
GOLDEN: dict[str, dict[str, Any]] = {
    "cifar10_600ep": {**PAPER, "data": "cifar10"},
    "cifar100_600ep": {**PAPER, "data": "cifar100"},
    "dropnas_600ep": {**PAPER, "data": "cifar10", "batch_size": 192, "learning_rate": 0.05, "clip": 3.0},
    "imagenet_250ep": {
        **PAPER,
        "data": "image_folder",
        "image_size": 224,
        "imagenet_statistics": True,
        "epochs": 250,
        "batch_size": 1024,
        "learning_rate": 0.5,
        "warm_up_epochs": 5,
        "weight_decay": 3e-5,
        "drop_path_rate": 0.0,
        "label_smoothing": 0.1,
        "augmentation.cutout": 0,
        "augmentation.min_scale": 0.08,
        "augmentation.colour_jitter": 0.4,
    },
}


def options(*words: str) -> dict[str, Any]:
    return dotted(train_line().parse(["dots_cifar10", "--out", "run", *words]))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_presets_resolve_to_the_papers_numbers(name: str) -> None:
    resolved = options("--preset", name)
    assert {key: resolved[key] for key in GOLDEN[name]} == GOLDEN[name]


def test_left_out_the_options_are_the_recipe_s_own() -> None:
    assert build(Recipe, train_line().parse(["dots_cifar10", "--out", "run"])) == Recipe()


def test_every_preset_is_read_and_an_option_beats_it() -> None:
    assert set(NAMED) == {*GOLDEN, "modern", "small_cpu", "dots_cifar10_tiny", "digits_small", "folder_small"}
    for name, values in NAMED.items():
        resolved = options("--preset", name, "--epochs", "40")
        assert resolved["epochs"] == 40 and resolved["batch_size"] == values["batch_size"]
    modern = NAMED["modern"]
    assert modern["ema_decay"] and modern["mixup"] and modern["cutmix"] and modern["precision"] == "bf16"


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(DotsZooError, match="preset: expected one of cifar100_600ep, .*, got 'cifar'"):
        options("--preset", "cifar")


def test_a_preset_resolves_in_what_print_config_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options("--epochs", "7", "--preset", "small_cpu", "--print-config")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["batch_size"] == 64 and printed["epochs"] == 7
