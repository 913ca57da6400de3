"""The grammar of the commands: spelling, files, presets, Python arguments, and errors in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_zoo.options.command_line import CommandLine
from dots_zoo.options.declaration import REQUIRED, Option, options_of
from dots_zoo.options.type_words import expectation
from dots_zoo.runtime.config import build
from dots_zoo.runtime.errors import DotsZooError


@dataclass(frozen=True)
class Inner:
    """Options of an optimiser.

    Args:
        learning_rate: of SGD.
        betas: of Adam.
    """

    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.5, 0.9)


@dataclass(frozen=True)
class Outer:
    """Options.

    Args:
        epochs: passes over the images.
        warm_up: epochs before.
        batch: sizes.
        rule: how.
        flip: mirror images.
        inner: of the optimiser.
        other: of another, with a default of its own.
    """

    epochs: int = 3
    warm_up: int | None = None
    batch: tuple[int, ...] = (1, 8)
    rule: Literal["any", "pairs", "none"] = "any"
    flip: bool = False
    inner: Inner = field(default_factory=Inner)
    other: Inner = field(default_factory=lambda: Inner(0.7))


def command() -> CommandLine:
    presets = {"small": {"epochs": 1, "inner.learning_rate": 0.5}}
    line = CommandLine(
        "learn", "Learn.", "NETWORK -o DIR", ["learn a -o b"], ("epochs",), presets, config=True
    )
    line.positional("network", "what learns")
    line.add(Option("out", str, REQUIRED, "folder"))
    line.add_from(Outer)
    return line


def outer(*words: str) -> Outer:
    return build(Outer, command().parse(["a", "-o", "b", *words]))


def refusal(*words: str) -> str:
    with pytest.raises(DotsZooError) as refused:
        command().parse(words)
    return str(refused.value).removeprefix("dots-zoo learn: ")


def test_an_option_has_hyphens_and_its_value_the_name_of_the_field(tmp_path: Path) -> None:
    assert outer() == Outer() and outer().other.learning_rate == 0.7
    words = "--warm-up 2 --batch 4 5 6 --rule pairs --flip --inner.learning-rate 0.2 --inner.betas [0.1,0.2]"
    expected = Outer(3, 2, (4, 5, 6), "pairs", True, Inner(0.2, (0.1, 0.2)))
    assert outer(*words.split()) == expected
    assert outer("--flip", "--no-flip") == Outer()
    python = {
        "network": "a",
        "out": Path("b"),
        "warm_up": 2,
        "batch": (4, 5, 6),
        "rule": "pairs",
        "flip": True,
    }
    nested = {**python, "inner": {"learning_rate": 0.2, "betas": (0.1, 0.2)}}
    flat = {**python, "inner.learning_rate": 0.2, "inner.betas": [0.1, 0.2]}
    for values in (nested, flat):
        parsed = command().parse_values(values)
        assert build(Outer, parsed) == expected and parsed["out"] == "b"


def test_the_command_line_overrides_the_file_and_the_file_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 7\ninner:\n  betas: [0.3, 0.4]\n")
    assert outer("--preset", "small") == Outer(epochs=1, inner=Inner(0.5))
    assert outer("--preset", "small", f"--config={file}") == Outer(epochs=7, inner=Inner(0.5, (0.3, 0.4)))
    assert outer("--config", str(file), "--epochs", "9").epochs == 9
    file.write_text("preset: small\n")
    assert outer("--config", str(file)) == Outer(epochs=1, inner=Inner(0.5))


def test_what_is_printed_as_a_configuration_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        command().parse(["--inner.learning-rate", "0.3", "--print-config"])
    assert not stop.value.code
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert outer("--config", str(file)) == Outer(inner=Inner(0.3))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("-o b", "expected NETWORK, got none: dots-zoo learn NETWORK -o DIR"),
        ("a", "expected --out, got none: dots-zoo learn NETWORK -o DIR"),
        ("a -o", "--out: expected a text, got nothing"),
        ("a b -o c", "got more than it takes: b; it is dots-zoo learn NETWORK -o DIR [options]"),
        ("a -o b --epochs two", "epochs: expected a whole number, got 'two'"),
        ("a -o b --warm-up 1.5", "warm_up: expected a whole number, got '1.5'"),
        ("a -o b --batch 1 x", "batch: expected a whole number, got 'x'"),
        ("a -o b --rule all", "rule: expected one of any, pairs, none, got 'all'"),
        ("a -o b --inner.learning-rate fast", "inner.learning_rate: expected a number, got 'fast'"),
        ("a -o b --inner.betas [1]", "inner.betas: expected 2 values as [a number, a number], got '[1]'"),
        (
            "a -o b --epoch 3 --warm_up 2 --zzz",
            "no such option: --epoch (did you mean --epochs?), --warm_up (did you mean --warm-up?), --zzz; "
            "dots-zoo learn --help lists them",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_with_types_in_words(words: str, sentence: str) -> None:
    assert refusal(*words.split()) == sentence


def test_all_wrong_keys_of_a_file_and_all_wrong_arguments_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("epoch: 7\ninner:\n  lerning_rate: 1\nflip: true\n")
    wrong = (
        f"no such key in {file}: epoch (did you mean epochs?), inner.lerning_rate (did you mean "
        "inner.learning_rate?); dots-zoo learn --help lists them"
    )
    assert refusal("a", "-o", "b", "--config", str(file)) == wrong
    with pytest.raises(DotsZooError, match="no such argument: epoch .did you mean epochs..; "):
        command().parse_values({"network": "a", "out": "b", "epoch": 1})
    file.write_text("epochs: seven\n")
    assert "epochs: expected a whole number, got 'seven'" in refusal("a", "-o", "b", "--config", str(file))
    for content, expected in (("- 1", "expected lines of KEY: VALUE, got a list"), ("a: [", "a YAML file")):
        file.write_text(content)
        assert expected in refusal("a", "-o", "b", "--config", str(file))
    assert "expected a YAML file, got" in refusal("a", "-o", "b", "--config", str(tmp_path / "none.yaml"))
    assert "preset: expected one of small, got 'smal' (did you mean small?)" in refusal(
        "a", "--preset", "smal"
    )


def test_the_help_opens_with_an_example_and_has_the_main_options_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        command().parse(["--help"])
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0] == "usage: dots-zoo learn NETWORK -o DIR [options]"
    assert lines[3] == "  dots-zoo learn a -o b"
    order = [shown.index(word) for word in ("--epochs N", "--help", "--batch N", "--inner.learning-rate X")]
    assert order == sorted(order)
    assert "of SGD (default: 0.1)" in shown and "class" not in shown


def exporting(network: str, *, out: str, sizes: Sequence[int] = (1,), fuse: bool = False) -> None:
    """Export.

    Args:
        network: a name.
        out: a file.
        sizes: of batches.
        fuse: rewrite first.
    """


def test_a_function_declares_options_as_a_dataclass_does() -> None:
    found = {option.name: (option.default, option.help) for option in options_of(exporting)}
    assert found["sizes"] == ((1,), "of batches.") and found["out"] == (REQUIRED, "a file.")
    line = CommandLine("export", "Export.", "NETWORK -o FILE", ["export a -o b"])
    line.positional("network", "a name")
    line.add_from(exporting)
    values = line.parse(["a", "--out", "b", "--sizes", "2", "3", "--fuse"])
    assert values == {"network": "a", "out": "b", "sizes": [2, 3], "fuse": True}


@given(
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["any", "pairs", "none"]),
)
def test_python_and_the_command_line_say_the_same(epochs: int, rate: float, rule: str) -> None:
    words = ["a", "-o", "b", f"--epochs={epochs}", f"--inner.learning-rate={rate}", f"--rule={rule}"]
    values: dict[str, Any] = {"epochs": epochs, "inner": {"learning_rate": rate}, "rule": rule}
    assert command().parse(words) == command().parse_values({"network": "a", "out": "b", **values})


def test_types_are_said_in_words() -> None:
    assert expectation(int | None) == "a whole number" and expectation(bool) == "true or false"
    assert expectation(Literal["a", "b"]) == "a or b" and expectation(tuple[int, ...]) == "a whole number"
