"""One grammar: every command's help, examples and options, the Python functions beside them, completion."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from dots_zoo_command import COMMANDS

from dots_zoo import export as export_room
from dots_zoo.commands.cli import main
from dots_zoo.commands.completion import all_command_lines
from dots_zoo.export.convert.command import ExportRequest
from dots_zoo.export.measure.options import BenchOptions
from dots_zoo.options.command_line import CommandLine
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search import search
from dots_zoo.search.methods.registry import METHODS
from dots_zoo.train import evaluate, predict, train

LINES = {line.name: line for line in all_command_lines()}
EVERY = pytest.mark.parametrize("name", LINES)
FLAGS = ("json", "quiet", "resume", "pretrained", "download")
PATHS = ("out", "data_root", "images", "checkpoint", "table")
ENGINES = {"onnxruntime", "tensorrt", "openvino", "torch", "torch-compiled"}
TERMINAL = {"json"}  # options that concern the terminal alone
START = "import sys; import dots_zoo_command as c; code = c.main(sys.argv[1:])"
HEAVY = "print('LOADED', [m for m in ('torch', 'timm', 'numpy', 'dots_zoo') if m in sys.modules], code)"


def help_of(line: CommandLine) -> str:
    return line.parser.format_help()


def lines_under(text: str, title: str) -> list[str]:
    """The lines after a title, up to an empty one."""
    after = text.split(f"\n{title}\n", 1)[1].split("\n\n", 1)[0]
    return [line.strip() for line in after.splitlines() if line.strip()]


def test_every_command_has_its_options_here() -> None:
    assert {name.split()[1] for name in LINES} == set(COMMANDS)


@EVERY
def test_the_help_opens_with_usage_and_an_example(name: str) -> None:
    text = help_of(LINES[name])
    assert text.startswith(f"usage: {name} ") and "<class" not in text and "typing" not in text
    [example] = lines_under(text, "example:")
    assert example.startswith(name) and example in lines_under(text, "examples:")


@EVERY
def test_every_example_is_understood_by_its_command(name: str) -> None:
    for example in lines_under(help_of(LINES[name]), "examples:"):
        words = shlex.split(example.partition(">")[0])
        assert words[0] == "dots-zoo"
        command = next(
            line for line in LINES.values() if words[: len(line.name.split())] == line.name.split()
        )
        options = [word for word in words[len(command.name.split()) :] if word.startswith("-")]
        assert set(options) <= set(command.known), example
        if "--print-config" in options:
            with pytest.raises(SystemExit):
                command.parse(words[command.name.count(" ") + 1 :])
        elif "--config" not in options:
            command.parse(words[command.name.count(" ") + 1 :])


@EVERY
def test_options_are_spelled_with_hyphens_and_explained(name: str) -> None:
    line = LINES[name]
    assert [spelling for spelling in line.known if "_" in spelling] == []
    assert {"--help", "-h", "--plugin"} <= set(line.known)
    actions = {option: action for action in line.parser._actions for option in action.option_strings}
    assert [option for option in line.known if option in actions and not actions[option].help] == []
    family = [other for other in LINES.values() if other.name.split()[1] == name.split()[1]]
    assert set(line.main) - {"out", "preset"} <= {option for other in family for option in other.types}
    config = {"--config", "--print-config"} & set(line.known)
    assert len(config) in (0, 2) and bool(config) == line.config


@EVERY
def test_an_option_means_the_same_everywhere(name: str) -> None:
    line = LINES[name]
    types, known = line.types, line.known
    assert ("-o" in known) == ("--out" in known) == ("out" in types)
    assert {spelling for spelling in known if len(spelling) == 2} <= {"-o", "-h"}
    assert [flag for flag in FLAGS if flag in types and types[flag] is not bool] == []
    for path in PATHS:
        if path in types:
            assert types[path] in (str, str | None, str | Path, str | Path | None), (path, types[path])
    for gone in ("provider", "for", "cfg", "output", "threads_count", "root", "n", "gpu"):
        assert gone not in types
    if "engine" in types:
        assert set(choices(types["engine"])) <= {
            "onnxruntime",
            "tensorrt",
            "openvino",
            "torch",
            "torch-compiled",
        }
    if "device" in types:
        assert set(choices(types["device"])) <= {"cpu", "cuda"}
    if "preset" in types:
        assert types["preset"] == str | None


def choices(value_type: Any) -> list[Any]:
    """The values of a Literal, alone or inside a type."""
    if get_origin(value_type) is Literal:
        return list(get_args(value_type))
    return [choice for part in get_args(value_type) for choice in choices(part)]


def arguments(function: Callable[..., Any], *records: Any) -> set[str]:
    """The keyword arguments of a function, `options` being the fields of the records."""
    names = set(inspect.signature(function).parameters) - {"options"}
    return names | {field.name for record in records for field in fields(record)}


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("predict", arguments(predict)),
        ("export", arguments(export_room.export, ExportRequest)),
        ("inspect", arguments(export_room.inspect)),
        ("bench", arguments(export_room.bench, BenchOptions)),
        ("report", arguments(export_room.report)),
        ("compare", arguments(export_room.compare)),
    ],
)
def test_a_function_takes_the_options_of_its_command(command: str, names: set[str]) -> None:
    assert set(LINES[f"dots-zoo {command}"].names) - TERMINAL == names


@pytest.mark.parametrize("command", ["train", "eval", *(f"search {method}" for method in METHODS)])
def test_a_function_with_options_by_name_takes_those_of_its_command(command: str) -> None:
    """Every option by its name, with an unknown one beside them: that one alone is refused."""
    line, [first, *method] = LINES[f"dots-zoo {command}"], command.split()
    function: Callable[..., Any] = {"train": train, "eval": evaluate, "search": search}[first]
    values = {name: "never" if name == "out" else None for name in line.names if name != "network"}
    with pytest.raises(DotsZooError) as refused:
        function(*(method or ["darts_v1"]), **values, no_option_of_any=1)
    assert str(refused.value) == (
        f"{line.name}: no such argument: no_option_of_any; {line.name} --help lists them"
    )


@pytest.mark.processes
def test_completion_in_bash_knows_the_options_of_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(script := capsys.readouterr().out)
    subprocess.run(["bash", "-n", str(tmp_path / "script")], check=True)
    for name, line in LINES.items():
        variable = f"_shtab_{re.sub('[^a-z_]', '_', name)}_option_strings"
        listed = re.search(rf"^{variable}=\((.*)\)$", script, re.MULTILINE)
        assert listed and set(line.known) <= set(listed[1].replace("'", "").split()), name


def test_completion_in_zsh_knows_the_options_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef dots-zoo")
    for name, line in LINES.items():
        assert name.split()[-1] in script
        assert [option for option in line.known if option not in script] == [], name


@pytest.mark.processes
@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        ("--help", 0, "usage: dots-zoo COMMAND"),
        ("--version", 0, "dots-zoo "),
        ("trian", 2, "did you mean train"),
    ],
)
def test_what_names_no_command_is_answered_without_torch(words: str, code: int, printed: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"{START}; {HEAVY}", words], capture_output=True, text=True, check=True
    )
    assert printed in ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == f"LOADED [] {code}"


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "darts_v1", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["name"] == "darts_v1"
