"""`dots-zoo explain` on a search of digits: what it prints and writes, and what it refuses."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from dots_zoo.commands.cli import main
from dots_zoo.genotype import load_genotype
from dots_zoo.runtime.checkpoint_files import load_state
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.explain.command import ANALYSES, command_line
from dots_zoo.search.explain.completed_run import read_completed_run
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import SearchSpace
from dots_zoo.search.stages.checkpoint import CheckpointManager
from dots_zoo.search.stages.loop import run_of, run_stages
from helpers.toy_search import search_toy, toy_config, toy_data, toy_derivation, toy_training

SEARCH = (
    "search darts --data digits --train-fraction 0.1 --space S3 --epochs 2 --layers 3 --topology pairs "
    "--topology-search.epochs 2 --topology-search.layers 3 --channels 2 --training.batch-size 60"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DARTS and a topology search behind it: the operation search has to be looked up where it was kept."""
    out = tmp_path_factory.mktemp("explained") / "run"
    assert main([*SEARCH.split(), "--out", str(out)]) == 0
    return out


@pytest.fixture
def explained(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def explain(what: str, *words: str) -> dict:  # type: ignore[type-arg]
        assert main(["explain", what, str(run), "--out", str(tmp_path / "out"), *words]) == 0
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and said.endswith(f"{tmp_path}/out/{what}.json, {what}.png\n")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{what}.json", f"{what}.png"]
        with Image.open(tmp_path / "out" / f"{what}.png") as picture:
            assert picture.width >= 500 and len(picture.convert("RGB").getcolors(100_000)) > 20
        document = json.loads((tmp_path / "out" / f"{what}.json").read_text())
        facts = json.loads((run / "run.json").read_text())
        assert document["schema"] == 1 and document["kind"] == f"explain.{what}"
        assert document["run"] == str(run) and document["config_sha256"] == facts["config_sha256"]
        assert (document["method"], document["dataset"], document["seed"]) == ("darts", "digits", 0)
        assert document["versions"]["scipy"] and document["machine"]["threads"] == 1
        assert document["settings"].keys() == ANALYSES[what].config.__dataclass_fields__.keys()
        return {**document["figures"], "said": said}

    return explain


def test_figures_without_a_picture(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_picture(*args: object, **options: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(Figure, "savefig", no_picture)
    words = ["--out", str(tmp_path), "--iterations", "1", "--image-count", "9"]
    assert main(["explain", "hessian", str(run), *words]) == 0
    assert capsys.readouterr().out.endswith(f"; written to {tmp_path}/hessian.json\n")
    assert caplog.messages == [f"{tmp_path}/hessian.png: left out (RuntimeError: no font)"]
    assert [path.name for path in tmp_path.iterdir()] == ["hessian.json"]


def operation_alpha(run: Path) -> torch.Tensor:
    """The logits of the normal cell, from the file itself."""
    identity = {"method": "darts", **read_completed_run(run).settings}
    saved = load_state(run / "stages" / "operation", identity)
    assert (
        saved is not None and saved.facts["progress"]["stage"] == 0 and saved.facts["progress"]["done"] == 2
    )
    return saved.tensors["logits.alpha.normal"]


def test_hessian(explained) -> None:  # type: ignore[no-untyped-def]
    found = explained("hessian", "--iterations", "2", "--image-count", "60")
    assert found["images"] == 60 and found["alphas"] == 2 * 14 * 3
    assert found["smallest"] <= found["largest"] and found["iterations"] == {"dominant": 2, "other": 2}
    assert found["dominant"] == found["history"]["dominant"][-1]
    assert "not converged: raise iterations" in found["said"]


def test_landscape(explained) -> None:  # type: ignore[no-untyped-def]
    found = explained("landscape", "--points", "3", "--image-count", "60", "--radius", "2")
    assert found["x"] == [-2.0, 0.0, 2.0] and len(found["loss"]) == len(found["loss"][0]) == 3
    assert found["centre"] == found["loss"][1][1] and f"{found['centre']:.4f} in the middle" in found["said"]


def test_discretise(explained, run: Path) -> None:  # type: ignore[no-untyped-def]
    found = explained("discretise", "--edge.node", "3", "--edge.input", "1", "--epochs", "1")
    assert found["edge"] == {"cell_type": "normal", "edge": "3<-1"}
    rows = found["operations"]
    assert [row["operation"] for row in rows] == ["skip_connect", "sep_conv_3x3"]  # none cannot be built
    weights = operation_alpha(run)[3].softmax(0)
    assert [row["alpha"] for row in rows] == pytest.approx(weights[1:].tolist())
    assert all(row["loss"] != row["at_once"]["loss"] for row in rows)


def test_shuffle(explained) -> None:  # type: ignore[no-untyped-def]
    found = explained("shuffle", "--draws", "2")
    assert len(found["draws"]) == 2 and found["after"]["accuracy_std"] >= 0
    assert found["images"] == 72 and found["after"]["loss"] != found["before"]["loss"]


def test_skip(explained, run: Path) -> None:  # type: ignore[no-untyped-def]
    found = explained("skip")
    assert found["epoch"] == [0, 1]  # of the operation search alone
    alphas = [json.loads(text)["weights"] for text in (run / "metrics.jsonl").read_text().splitlines()[:2]]
    gaps = [row["skip_connect"] - row["sep_conv_3x3"] for kind in alphas[1].values() for row in kind.values()]
    assert found["gap"][1] == pytest.approx(sum(gaps) / 28) and len(gaps) == 28


def test_tau(explained, run: Path) -> None:  # type: ignore[no-untyped-def]
    found = explained("tau", "--node", "3", "--training.epochs", "1")
    assert found["by"] == "beta"
    assert [row["combination"] for row in found["combinations"]] == ["0+1", "0+2", "1+2"]
    saved = load_state(run / "checkpoint", {"method": "darts", **read_completed_run(run).settings})
    assert saved is not None
    expected = saved.tensors["logits.beta.normal"][1, :3].tolist()
    assert [row["importance"] for row in found["combinations"]] == pytest.approx(expected)
    assert found["networks"] == {
        **{"channels": 2, "layers": 3, "epochs": 1, "seeds": 1},
        **{"training_images": 143, "test_images": 355},
    }
    assert all(0 <= row["accuracy"] <= 1 for row in found["combinations"])


def test_features(explained) -> None:  # type: ignore[no-untyped-def]
    found = explained("features", "--clusters", "2", "--image-count", "30", "--cell", "last")
    assert found["cluster"] == {"skip_connect": 0, "sep_conv_3x3": 1} and found["images"] == 30
    assert found["edge"] == {"cell_type": "normal", "edge": "2<-0", "cell": "last"}
    assert "clusters: skip_connect | sep_conv_3x3" in found["said"]


def test_alone(explained, run: Path) -> None:  # type: ignore[no-untyped-def]
    edge = load_genotype(run / "genotype.json").normal.edges[0]
    words = ["--edge.node", str(edge.node), "--edge.input", str(edge.input)]
    found = explained("alone", *words, "--training.epochs", "1", "--training.seeds", "2")
    row = operation_alpha(run)[edge.input].softmax(0)  # node 2: its edges are the first
    assert [r["alpha"] for r in found["operations"]] == pytest.approx(row[1:].tolist())
    assert all(r["accuracy"] == sum(r["accuracies"]) / 2 for r in found["operations"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["hessian", "--image-count", "73"],
            "image_count: expected 1 to 72, the images of the validation split, got 73",
        ),
        (["landscape", "--points", "4"], "points: expected an odd number of 3 or more, got 4"),
        (["discretise", "--edge.node", "9"], "edge 9<-0: expected one of 2<-0, 2<-1"),
        (["features", "--edge.operations", "[noise]"], "edge 2<-0: expected operations among skip_connect"),
        (["tau", "--by", "alpha", "--node", "2"], "node 2: expected two combinations of edges or more"),
        (["tau", "--node", "9"], "node: expected one of 2, 3, 4, 5, got 9"),
        (["alone", "--edge.cell-type", "cell"], "cell_type: expected one of normal, reduce, got 'cell'"),
    ],
)
def test_what_has_no_meaning_is_refused_and_nothing_is_written(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what, *options = words
    assert main(["explain", what, str(run), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".json", ".png"])
def test_a_pipe_is_refused_and_stays(
    suffix: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / f"skip{suffix}"
    os.mkfifo(pipe)
    assert main(["explain", "skip", str(run), "--out", str(tmp_path)]) == 2
    assert f"{pipe}: cannot be written" in capsys.readouterr().err
    assert pipe.is_fifo() and [*tmp_path.iterdir()] == [pipe]


@pytest.mark.parametrize("what", ANALYSES)
def test_the_folder_is_looked_at_first_and_left_alone(
    what: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, network = tmp_path / "begun", tmp_path / "network"
    begun.mkdir()
    network.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        shutil.copy(run / name, begun)
    for name in ("genotype.json", "run.json"):  # as of a training, which has no config.yaml of a search
        shutil.copy(run / name, network)
    ended = "expected the folder of a completed search, got "
    for folder, message in [
        (tmp_path / "none", f"{ended}nothing there"),
        (run / "config.yaml", f"{ended}a file"),
        (network, f"{ended}one without config.yaml, metrics.jsonl"),
        (begun, "expected genotype.json, run.json; the search has not ended: resume it with --resume"),
    ]:
        before = sorted(tmp_path.rglob("*"))
        assert main(["explain", what, str(folder)]) == 2
        assert capsys.readouterr().err == f"dots-zoo: error: {folder}: {message}\n"
        assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_not_a_finished_search_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DotsZooError, match="expected the folder of a completed search, got nothing there"):
        read_completed_run(tmp_path / "none")
    part = tmp_path / "part"
    shutil.copytree(run, part)
    (part / "genotype.json").unlink()
    with pytest.raises(
        DotsZooError, match="expected genotype.json; the search has not ended: resume it with"
    ):
        read_completed_run(part)
    shutil.copy(run / "genotype.json", part)
    shutil.rmtree(part / "stages")
    with pytest.raises(
        DotsZooError, match="expected the search as its operation search left it, got nothing"
    ):
        read_completed_run(part).snapshot("operation")
    assert read_completed_run(part).snapshot("topology").search.choices.keys() >= {"beta.normal"}
    settings = (part / "config.yaml").read_text()
    (part / "config.yaml").write_text(settings.replace("seed: 0", "seed: 1"))
    with pytest.raises(DotsZooError, match="made with training.seed 0, expected 1"):
        read_completed_run(part).snapshot("topology")
    (part / "config.yaml").write_text(settings.replace("space: S3", "spice: S3"))
    with pytest.raises(DotsZooError, match="expected a method of dots_zoo, a space by name and a data set"):
        read_completed_run(part)
    (part / "seeds.json").write_text("{}")
    with pytest.raises(DotsZooError, match="holds searches of several seeds: pass one of its folders"):
        read_completed_run(part)


@pytest.mark.parametrize(
    ("method", "words", "what", "message"),
    [
        ("fixed_alpha", ["--epochs", "1"], "discretise", "fixed_alpha trains no alpha"),
        ("fixed_alpha", ["--epochs", "1"], "skip", "expected validation_accuracy or architecture_accuracy"),
        ("fixed_alpha", ["--epochs", "1"], "alone", "fixed_alpha trains no alpha"),
        ("random_search", [], "shuffle", "random_search of 0 epochs trained no weights"),
        ("random_search", [], "tau --by beta", "expected a topology search of pairs or any for beta, got"),
        ("random_search", ["--space", "S6"], "tau", "the cell of NAS-Bench-201 keeps all edges"),
    ],
)
def test_methods_without_what_is_asked_for(
    method: str, words: list[str], what: str, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    search = f"search {method} --data digits --train-fraction 0.1 --space S2 --layers 3 --channels 2"
    out = str(tmp_path / "run")
    assert main([*search.split(), "--training.batch-size", "60", *words, "--out", out]) == 0
    name, *options = what.split()
    assert main(["explain", name, out, *options]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run" / "explain").exists()


def walk(folder: Path, stop_at: int | None = None) -> None:
    """DARTS with a topology search and a selection behind it, up to the checkpoint of a number."""
    config = toy_config("darts", epochs=2, warm_up=1, training=toy_training(batch_size=16))
    space: SearchSpace = darts_space(("skip_connect", "sep_conv_3x3"), 2)
    stages = plan("darts", config, toy_derivation("pairs", selection="perturbation_magnitude"), space)
    assert [stage.saved_as for stage in stages if stage.saved_as] == ["operation", "topology"]
    checkpoints = CheckpointManager(folder / "checkpoint", 1e9, {"x": 1}, stages_folder=folder / "stages")
    checkpoints.stop = lambda: (
        stop_at is not None and checkpoints.last is not None and int(checkpoints.last.name[:8]) >= stop_at
    )
    epochs = run_stages(
        stages,
        run_of(config.training, toy_data(32)),
        checkpoints=checkpoints,
        saved=checkpoints.load_latest(),
        progress=False,
    )
    with contextlib.suppress(SystemExit):
        list(epochs)


def test_what_a_stage_left_is_kept_also_by_a_search_that_stops_there(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    walk(whole)
    walk(stopped, 2)  # behind the last epoch of the operation search
    assert not (stopped / "stages").exists()
    walk(stopped)
    for name in ("operation", "topology"):
        one, other = (load_state(folder / "stages" / name, {"x": 1}) for folder in (whole, stopped))
        assert one is not None and other is not None
        assert one.tensors.keys() == other.tensors.keys() and one.facts["progress"]["stage"] in (1, 3)
        assert all(torch.equal(other.tensors[key], tensor) for key, tensor in one.tensors.items())


def test_without_another_stage_nothing_is_kept_aside() -> None:
    stages = plan("darts", toy_config("darts"), toy_derivation(), darts_space())
    assert {stage.saved_as for stage in stages} == {""}
    assert len(search_toy("darts", epochs=1, warm_up=0)) == 1  # without checkpoints


@pytest.mark.parametrize("what", ANALYSES)
def test_help_teaches_by_example(what: str) -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as left:
        command_line(what).parse(["--help"])
    assert left.value.code == 0 and f"dots-zoo explain {what} runs/x" in shown.getvalue()
