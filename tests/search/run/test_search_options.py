import ast
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dots_zoo.search
from dots_zoo.data.augment import Augmentation
from dots_zoo.data.datasets import DataOptions
from dots_zoo.genotype import load_genotype
from dots_zoo.runtime.config import presets_in
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.dots import DotsConfig
from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.run import command
from dots_zoo.search.run.command import EXAMPLES, PRESETS, choose
from dots_zoo.search.run.run import run_search
from dots_zoo.search.space.named import named_space
from dots_zoo.search.stages.config import LogitsConfig, TrainingConfig, WeightsConfig
from helpers.toy_search import toy_config, toy_data, toy_derivation, toy_training

SEARCH = Path(dots_zoo.search.__file__).parent


def configurations():
    """Every dataclass that is reachable from the options."""
    found, waiting = [], [Derivation, DataOptions, *(method.config for method in METHODS.values())]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.append(kind)
            waiting += [
                type(value)
                for field in dataclasses.fields(kind)
                if dataclasses.is_dataclass(value := getattr(kind(), field.name))
            ]
    return found


@pytest.mark.parametrize("config", configurations(), ids=lambda kind: kind.__name__)
def test_every_field_of_a_configuration_is_read_somewhere_and_explained(config):
    read = set()
    for path in [*SEARCH.rglob("*.py"), *SEARCH.parent.glob("dots_zoo/**/*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = {field.name for field in dataclasses.fields(config)}
    assert names <= read
    assert names == set(re.findall(r"^        (\w+): \S", config.__doc__, re.M))


def test_every_option_becomes_the_configuration():
    chosen = choose(
        ["dots", "--out", "x", "--topology-search.epochs", "4", "--training.weights.clip", "3", "--topology",
         "any", "--image-size", "12", "--groups", "one", "--space", "S3", "--keep", "2",
         "--training.augmentation.cutout", "5"]
    )  # fmt: skip
    assert chosen.method == "dots" and chosen.out == Path("x") and chosen.space == "S3"
    assert chosen.data == DataOptions(image_size=12)
    training = TrainingConfig(weights=WeightsConfig(clip=3.0), augmentation=Augmentation(cutout=5))
    assert chosen.config == DotsConfig(groups="one", training=training)
    assert chosen.derivation == Derivation("any", 2, topology_search=TopologyConfig(epochs=4))


def test_the_defaults_are_those_of_the_configurations_and_only_dots_searches_the_topology():
    for name, method in METHODS.items():
        chosen = choose([name, "--out", "x"])
        assert chosen.config == method.config() and chosen.data == DataOptions() and chosen.space == "S0"
        assert chosen.derivation == Derivation(topology="pairs" if name == "dots" else "none")


def test_the_written_configuration_is_read_back_as_the_same_search(tmp_path):
    config = toy_config(
        "darts", seed=7, epochs=1, warm_up=0, channels=2, training=toy_training(7, kernels="off")
    )
    data = dataclasses.replace(toy_data(64), options=dataclasses.asdict(DataOptions(image_size=9)))
    derivation = toy_derivation()
    run_search("darts", config, derivation, "S2", data, tmp_path / "run", progress=False)
    written = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(written.read_text())["training"]["seed"] == 7
    again = choose(["darts", "--config", str(written), "--out", "x"])
    assert (
        again.config == dataclasses.replace(config, macro="cifar")
        and again.derivation == derivation
        and again.space == "S2"
    )
    assert again.data == DataOptions(image_size=9)


def test_the_printed_configuration_is_read_back(capsys, tmp_path):
    with pytest.raises(SystemExit):
        choose(["dots", "--channels", "8", "--print-config"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    chosen = choose(["dots", "--config", str(tmp_path / "mine.yaml"), "--out", "x"])
    assert chosen.config == DotsConfig(channels=8)


@pytest.mark.parametrize("name", sorted(presets_in(PRESETS)))
def test_every_preset_is_a_search_that_can_be_planned_and_says_how_to_run_it(name):
    method = presets_in(PRESETS)[name]["method"]
    chosen = choose([method, "--preset", name, "--out", "x"])
    assert plan(method, chosen.config, chosen.derivation, named_space(chosen.space))
    first = (SEARCH / "run" / "presets" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# dots-zoo search {method} --preset {name} ") and " --out " in first


def test_an_option_wins_over_the_preset_and_the_preset_over_the_defaults():
    chosen = choose(["dots", "--preset", "digits_small", "--out", "x", "--channels", "6"])
    assert chosen.config.channels == 6 and chosen.config.training.batch_size == 96
    assert chosen.config.training.logits == LogitsConfig(learning_rate=0.03, betas=(0.9, 0.999))
    assert chosen.derivation.topology_search.operation_temperature == 0.02


def test_the_numbers_of_a_preset_are_printed_and_shown_in_the_help(capsys):
    for argument in ("--print-config", "--help"):
        with pytest.raises(SystemExit):
            choose(["dots", "--preset=digits_small", argument])
    printed, shown = capsys.readouterr().out.split("usage:", 1)
    assert "batch_size: 96" in printed and "at the first epoch (default: 0.2)" in " ".join(shown.split())


def test_a_preset_that_is_not_there_or_of_another_method_is_refused():
    with pytest.raises(DotsZooError, match=r"preset: expected one of .*digits_small.*, got 'digits'"):
        choose(["dots", "--preset", "digits", "--out", "x"])
    with pytest.raises(DotsZooError, match="preset: expected one of darts_cifar10, .*, got 'digits_small'"):
        choose(["darts", "--preset", "digits_small", "--out", "x"])


def test_the_help_of_the_command_shows_what_goes_together(capsys):
    with pytest.raises(SystemExit):
        choose(["--help"])
    text = capsys.readouterr().out
    assert "\n  sgas                                 yes              -          -\n" in text


def test_the_help_teaches_by_example(capsys):
    with pytest.raises(SystemExit):
        choose(["dots", "--help"])
    text = capsys.readouterr().out
    assert "  dots-zoo search dots --data-root photos -o runs/cell\n" in text
    assert "the best operation of every group stays" in " ".join(text.split())


@pytest.mark.parametrize("line", [example.removeprefix("search ").partition(" >")[0] for example in EXAMPLES])
def test_the_examples_of_the_help_are_understood(line, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("channels: 8\n")
    (tmp_path / "runs/cell").mkdir(parents=True)
    (tmp_path / "runs/cell/config.yaml").write_text("epochs: 20\n")
    if "--print-config" in line:
        with pytest.raises(SystemExit) as stopped:
            choose(line.split())
        assert stopped.value.code == 0
    else:
        assert choose(line.split()).method in METHODS


def test_the_command_searches_on_digits(capsys, tmp_path):
    command.main(
        ["dots", "--data", "digits", "--train-fraction", "0.05", "--out", str(tmp_path / "run"),
         "--epochs", "1", "--warm-up", "0", "--topology-search.epochs", "1", "--layers", "3",
         "--topology-search.layers", "3", "--channels", "2", "--training.batch-size", "32"]
    )  # fmt: skip
    found = load_genotype(tmp_path / "run" / "genotype.json")
    assert [len(cell.edges) for cell in found.cells.values()] == [8, 8]
    text = capsys.readouterr().out
    assert "Genotype(normal=" in text and str(tmp_path / "run") in text


@pytest.mark.processes
def test_the_module_runs_and_exits_with_2_where_the_input_cannot_be_used(tmp_path):
    arguments = ["dots", "--data", "cifar10", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "dots_zoo.search", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "dots-zoo search: error: cifar10: expected --data-root"
    )
    assert not list(tmp_path.iterdir())


def test_a_supernet_that_cannot_be_built_is_refused_before_any_work():
    config = METHODS["darts"].config()
    with pytest.raises(DotsZooError, match="expected a number of cells that is divisible by 3"):
        plan("darts", config, Derivation(), named_space("S6"))
    config = METHODS["pc_darts"].config(share=3)
    with pytest.raises(DotsZooError, match="share of partial channels, 3, got 16"):
        plan("pc_darts", config, Derivation(), named_space("S0"))
