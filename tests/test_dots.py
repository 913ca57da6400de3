import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import dots_zoo.search
from dots_zoo.datasets import DataOptions, load_data
from dots_zoo.errors import DotsZooError
from dots_zoo.genotype import load_genotype, validate
from dots_zoo.search import __main__ as command
from dots_zoo.search.config import DotsConfig, LogitsConfig, TrainingConfig, WeightsConfig
from dots_zoo.search.dots import relax_operations, relax_topology, stages, surviving_space
from dots_zoo.search.loop import run_stages
from dots_zoo.search.run import search
from dots_zoo.search.space import darts_space
from dots_zoo.search.stages import Moment
from dots_zoo.search.steps import bilevel, one_level, train_weights
from toy_search import PLANTED_SPACE, toy_config, toy_data

SPACE = darts_space()

CPU = torch.device("cpu")
SEARCH = Path(dots_zoo.search.__file__).parent


def test_the_paper_searches_for_30_and_40_epochs_and_each_starts_with_weights_only():
    plan = stages(DotsConfig(), SPACE)
    assert [stage.epochs for stage in plan] == [15, 15, 20, 20]
    assert [stage.step for stage in plan] == [train_weights, bilevel, train_weights, one_level]
    assert [stage.images for stage in plan] == ["a", "a", "a", "all"]
    assert [stage.architecture_images for stage in plan] == [None, "b", None, None]
    assert {stage.batch_size for stage in plan} == {64}
    assert plan[3].learning_rate(0) == 0.025 and plan[0].learning_rate(35) == pytest.approx(0.013)


@pytest.mark.parametrize("config", [DotsConfig, TrainingConfig, WeightsConfig, LogitsConfig, DataOptions])
def test_every_field_of_the_configuration_is_read_somewhere_and_explained(config):
    read = set()
    for path in SEARCH.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = {field.name for field in dataclasses.fields(config)}
    assert names <= read
    assert names == set(re.findall(r"^        (\w+): \S", config.__doc__, re.M))


def test_the_operations_of_an_edge_compete_in_their_groups():
    config, space = DotsConfig(), darts_space(("none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"), 1)
    relax = relax_operations(config, space, CPU)
    logits = {
        f"alpha.{kind}": torch.tensor([[3.0, 1.0, 4.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).log1p()
        for kind in space.kinds
    }
    relaxed = relax(logits, Moment(0, 0))
    expected = torch.tensor([[4 / 6, 2 / 6, 5 / 7, 2 / 7], [0.5, 0.5, 0.5, 0.5]])
    torch.testing.assert_close(relaxed.mixture["reduce"], expected)
    torch.testing.assert_close(relaxed.weights["alpha.normal"], expected)


def topology_logits(space, alpha, beta):
    return {
        f"{name}.{kind}": value for kind in space.kinds for name, value in (("alpha", alpha), ("beta", beta))
    }


def test_the_topology_search_weighs_edges_by_their_combinations_and_operations_by_a_colder_softmax():
    space = darts_space(("skip_connect", "sep_conv_3x3"), 2)
    config = DotsConfig(topology_epochs=40, temperature_start=2.0)
    alpha = torch.tensor([[0.002, 0.0], [0.0, 0.0], [0.0, 0.002], [0.0, 0.0], [0.0, 0.0]])
    beta = torch.tensor(
        [[0.0, 9.0, 9.0], [2.0, 0.0, 0.0]]
    )  # node 2 has one pair, the rest of its row is padding
    relaxed = relax_topology(config, space, CPU)(topology_logits(space, alpha, beta), Moment(0, 50))
    e = torch.e
    pairs = torch.tensor([[1.0, 0.0, 0.0], [e / (e + 2), 1 / (e + 2), 1 / (e + 2)]])  # at temperature 2
    torch.testing.assert_close(relaxed.weights["beta.normal"], pairs)
    operations = torch.tensor(
        [[e / (e + 1), 1 / (e + 1)], [0.5, 0.5], [1 / (e + 1), e / (e + 1)], [0.5, 0.5], [0.5, 0.5]]
    )
    torch.testing.assert_close(relaxed.weights["alpha.reduce"], operations)  # at temperature 2 / 1000
    gamma = torch.tensor([0.5, 0.5, (e + 1) / (e + 2) / 2, (e + 1) / (e + 2) / 2, 1 / (e + 2)])  # Eq. 7
    torch.testing.assert_close(relaxed.mixture["normal"], gamma[:, None] * operations)
    summed = relax_topology(dataclasses.replace(config, average_edges=False), space, CPU)
    relaxed = summed(topology_logits(space, alpha, beta), Moment(0, 50))
    torch.testing.assert_close(relaxed.mixture["normal"], 2 * gamma[:, None] * operations)


def test_the_temperature_stays_through_the_warm_up_and_falls_as_eq_9_has_it():
    space = darts_space(("skip_connect", "sep_conv_3x3"), 2)
    relax = relax_topology(DotsConfig(), space, CPU)
    logits = topology_logits(space, torch.zeros(5, 2), torch.zeros(2, 3))
    series = [relax(logits, Moment(0, epoch)).schedules["temperature"] for epoch in range(30, 70)]
    assert series[:21] == [10.0] * 21
    theta = series[21] / 10
    assert theta == pytest.approx(0.72, abs=0.002)
    assert series[20:] == pytest.approx([10 * theta**epoch for epoch in range(20)])
    assert series[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_the_planted_operation_and_the_planted_edges(seed):
    config = toy_config(seed)
    epochs = list(run_stages(stages(config, PLANTED_SPACE), config.training, toy_data(), progress=False))
    for cell in epochs[-1].cells.values():
        assert [(edge.node, edge.input) for edge in cell.edges] == [(2, 0), (2, 1), (3, 1), (3, 2)]
        assert {edge.op for edge in cell.edges} == {"sep_conv_3x3"}
    for kind in PLANTED_SPACE.kinds:
        assert list(epochs[-1].weights[f"alpha.{kind}"]["2<-0"]) == ["sep_conv_3x3"]  # noise did not survive
        assert (
            epochs[-1].figures[f"entropy.beta.{kind}"]
            < 0.01
            < 0.5
            < epochs[4].figures[f"entropy.beta.{kind}"]
        )


def test_a_search_that_learns_nothing_misses_what_is_planted():
    config = toy_config()
    still = dataclasses.replace(config.training, logits=LogitsConfig(learning_rate=0.0, weight_decay=0.0))
    config = dataclasses.replace(config, training=still, operation_epochs=1, topology_epochs=1)
    epochs = list(run_stages(stages(config, PLANTED_SPACE), config.training, toy_data(), progress=False))
    assert {edge.op for edge in epochs[-1].cells["normal"].edges} == {"noise"}
    assert [edge.input for edge in epochs[-1].cells["normal"].edges] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    "groups", [(("none", "skip_connect", "sep_conv_3x3"),), (("none", "skip_connect"), ("sep_conv_3x3",))]
)
def test_where_none_wins_on_every_edge_a_cell_is_still_derived(groups):
    space = darts_space(("none", "skip_connect", "sep_conv_3x3"), 2)
    config = toy_config(groups=groups, operation_epochs=1, topology_epochs=1)
    still = dataclasses.replace(config.training, logits=LogitsConfig(learning_rate=0.0, weight_decay=0.0))
    config = dataclasses.replace(config, training=still)

    def with_none(begin):
        def begin_with_none(run, before):
            found = begin(run, before)
            for name, logits in found.logits.items():
                if name.startswith("alpha"):
                    logits.data[:, 0] = 10.0
            return found

        return begin_with_none

    plan = [dataclasses.replace(stage, begin=with_none(stage.begin)) for stage in stages(config, space)]
    epochs = list(run_stages(plan, config.training, toy_data(), progress=False))
    for epoch in epochs:
        assert epoch.weights["alpha.normal"]["3<-2"]["none"] > 0.99
        for cell in epoch.cells.values():
            assert len(cell.edges) == 4 and all(edge.op != "none" for edge in cell.edges)


def test_the_topology_search_gets_the_survivors_of_the_operation_search():
    class Before:
        space = SPACE
        logits = {
            f"alpha.{kind}": torch.eye(8)[[2, 7] * 7] + 2 * torch.eye(8)[[5, 3] * 7] for kind in SPACE.kinds
        }

    found = surviving_space(DotsConfig(), Before())
    assert found.candidates("normal")[:2] == (
        ("avg_pool_3x3", "sep_conv_5x5"),
        ("skip_connect", "dil_conv_5x5"),
    )
    assert {len(operations) for operations in found.candidates("reduce")} == {2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operation_epochs": 0}, "operation_epochs: expected 1 or more, got 0"),
        ({"topology_epochs": 0}, "topology_epochs: expected 1 or more, got 0"),
        ({"operation_cells": 2}, "operation_cells: expected 3 or more, got 2"),
        ({"topology_cells": 2}, "topology_cells: expected 3 or more, got 2"),
        ({"temperature_end": 0.0}, "temperature_end: expected more than 0, got 0.0"),
        ({"temperature_start": -1.0}, "temperature_start: expected more than 0, got -1.0"),
        ({"operation_temperature": 0.0}, "operation_temperature: expected more than 0, got 0.0"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(changes, message):
    with pytest.raises(DotsZooError, match=message):
        DotsConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "training.batch_size: expected 1 or more, got 0"),
        ({"channels": 0}, "training.channels: expected 1 or more, got 0"),
        ({"crop_padding": -1}, "training.crop_padding: expected 0 or more, got -1"),
        ({"cutout": -1}, "training.cutout: expected 0 or more, got -1"),
    ],
)
def test_training_numbers_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(DotsZooError, match=message):
        TrainingConfig(**changes)


def test_a_run_is_a_folder_that_says_what_was_found_and_how(tmp_path):
    config, out = toy_config(operation_epochs=2, topology_epochs=2), tmp_path / "run"
    found = search("dots", config, toy_data(), out, space=PLANTED_SPACE, progress=False)
    assert load_genotype(out / "genotype.json") == found
    validate(found)
    assert sorted(path.name for path in out.iterdir()) == [
        *("config.yaml", "genotype.json", "genotypes", "metrics.jsonl", "plots", "run.json", "tensorboard")
    ]
    provenance = load_genotype(out / "genotype.json").provenance
    assert provenance["method"] == "dots" and provenance["dataset"] == "toy" and provenance["seed"] == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert {"loss", "accuracy", "temperature", "entropy.beta.normal", "learning_rate"} <= set(lines[3])
    assert provenance["metrics"]["loss"] == lines[3]["loss"]
    assert [load_genotype(out / "genotypes" / f"{epoch:03d}.json").space for epoch in range(4)] == [
        "darts"
    ] * 4
    assert load_genotype(out / "genotypes" / "003.json") == found
    run = json.loads((out / "run.json").read_text())
    assert run["versions"]["torch"] in torch.__version__ and run["wall_seconds"] > 0
    assert run["config_sha256"] == provenance["config_sha256"]
    assert list((out / "tensorboard").iterdir())
    plots = {path.name for path in (out / "plots").iterdir()}
    assert {"alpha.normal.1.png", "alpha.normal.2.png", "beta.normal.png", "beta.reduce.png"} <= plots
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (("noise",),)}, "groups: expected sep_conv_3x3 of the normal cell in exactly one group"),
        ({"training": TrainingConfig(batch_size=129)}, "expected at least one batch of 129 images, got 128"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(DotsZooError, match=message):
        search(
            "dots", toy_config(**changes), toy_data(), tmp_path / "run", space=PLANTED_SPACE, progress=False
        )
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DotsZooError, match="expected a new or an empty folder for the run; choose another"):
        search("dots", toy_config(), toy_data(), tmp_path, space=PLANTED_SPACE, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def caught(monkeypatch, *argv):
    """What the command passes to `search`."""
    calls = []

    def remember(*args):
        calls.append(args)
        return load_genotype("dots_cifar10")

    monkeypatch.setattr(command, "search", remember)
    command.main(argv)
    return calls[0]


def test_the_command_turns_every_option_into_the_configuration(monkeypatch, tmp_path):
    method, config, data, out = caught(
        monkeypatch, "dots", "--out", str(tmp_path), "--topology_epochs", "4", "--training.weights.clip", "3",
        "--edges", "any", "--image_size", "12", "--groups", "[[none, skip_connect], [sep_conv_3x3]]",
    )  # fmt: skip
    assert method == "dots" and out == tmp_path and data.images.shape[-1] == 12
    training = TrainingConfig(weights=WeightsConfig(clip=3.0))
    groups = (("none", "skip_connect"), ("sep_conv_3x3",))
    assert config == DotsConfig(topology_epochs=4, edges="any", groups=groups, training=training)


def test_the_written_configuration_is_read_back_as_the_same_search(monkeypatch, tmp_path):
    config = toy_config(seed=7, operation_epochs=1, topology_epochs=1)
    data = dataclasses.replace(toy_data(), options=dataclasses.asdict(DataOptions(image_size=9)))
    search("dots", config, data, tmp_path / "run", space=PLANTED_SPACE, progress=False)
    written = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(written.read_text())["training"]["seed"] == 7
    arguments = "--config", str(written), "--out", str(tmp_path / "x")
    _, again, images, _ = caught(monkeypatch, "dots", *arguments)
    assert again == config and images.images.shape[-1] == 9


def test_the_printed_configuration_is_read_back(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        command.main(["dots", "--training.channels", "8", "--print_config"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    out = tmp_path / "out"
    _, config, _, _ = caught(monkeypatch, "dots", "--config", str(tmp_path / "mine.yaml"), "--out", str(out))
    assert config == DotsConfig(training=TrainingConfig(channels=8))


def test_the_help_teaches_by_example(capsys):
    with pytest.raises(SystemExit):
        command.main(["dots", "--help"])
    text = capsys.readouterr().out
    assert "dots-zoo search dots --data digits --out runs/first\n" in text
    assert "pairs keeps two edges a node" in text


def test_the_command_searches_on_digits(monkeypatch, capsys, tmp_path):
    def few(options):
        data = load_data(options)
        return dataclasses.replace(data, images=data.images[:64], labels=data.labels[:64])

    monkeypatch.setattr(command, "load_data", few)
    found = command.main(
        ["dots", "--data", "digits", "--out", str(tmp_path / "run"), "--operation_epochs", "1",
         "--topology_epochs", "1", "--operation_cells", "3", "--topology_cells", "3",
         "--training.channels", "2", "--training.batch_size", "32"]
    )  # fmt: skip
    assert load_genotype(tmp_path / "run" / "genotype.json") == found
    assert [len(cell.edges) for cell in found.cells.values()] == [8, 8]
    text = capsys.readouterr().out
    assert "Genotype(normal=" in text and str(tmp_path / "run") in text


def test_the_module_runs_and_exits_with_2_where_the_input_cannot_be_used(tmp_path):
    arguments = ["dots", "--data", "cifar10", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "dots_zoo.search", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "dots-zoo search: error: cifar10: expected data_root"
    )
    assert not list(tmp_path.iterdir())
