"""A search that stops goes on and ends with the same bits: stopped in process, told to end, killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from soak import Case, cases, outcome, same
from torch import Tensor

from dots_zoo.commands.cli import main
from dots_zoo.runtime.checkpoint_files import load_state
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.stages.checkpoint import CheckpointManager
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.search.stages.stage import Epoch
from helpers.matrix import mostly_slow
from helpers.paths import ROOT
from helpers.short_searches import DARTS, SHORT, SKIPS, configuration, derivation
from helpers.toy_search import search_toy, toy_data

COMMAND = [
    "search",
    "darts",
    "--data",
    "digits",
    "--space",
    "S2",
    "--epochs",
    "2",
    "--warm-up",
    "1",
    "--layers",
]
COMMAND += ["3", "--channels", "2", "--training.batch-size", "96", "--checkpoint-seconds", "0"]


# each draws, decides or keeps something that the others do not
KINDS = [
    ((name, topology, selection),)
    for selection, topology, names in (
        ("magnitude", "none", ("darts second", "darts_minus", "dropnas", "p_darts", "sgas", "random_search")),
        ("magnitude", "pairs", ("dots v2", "gdas", "pc_darts")),
        ("perturbation", "none", ("darts",)),
        ("perturbation", "pairs", ("fixed_alpha",)),
    )
    for name in names
]


def walk(case: Case, folder: Path, stop_at: int | None = None) -> list[Epoch]:
    """Go on with a search, up to the checkpoint of a number; the Epochs that are given on the way."""
    name, topology, selection = case
    method, config = SHORT[name][0], configuration(name)
    stages = plan(method, config, derivation(topology, selection), SKIPS if name == "dots v1" else DARTS)
    checkpoints = CheckpointManager(folder, 0.0, {"case": list(case)})
    checkpoints.stop = lambda: stop_at is not None and number(checkpoints) >= stop_at
    epochs = run_stages(
        stages,
        run_of(config.training, toy_data(16)),
        checkpoints=checkpoints,
        saved=checkpoints.load_latest(),
        progress=False,
    )
    given: list[Epoch] = []
    try:
        given.extend(epochs)
    except SystemExit as error:
        assert error.code == 143 and number(checkpoints) == stop_at
    return [replace(e, figures={k: v for k, v in e.figures.items() if k != "seconds"}) for e in given]


def number(checkpoints: CheckpointManager) -> int:
    return int(checkpoints.last.name[:8]) if checkpoints.last else 0


def last(folder: Path, case: Case) -> dict[str, Tensor]:
    found = load_state(folder, {"case": list(case)})
    assert found is not None
    return dict(found.tensors)


@pytest.mark.parametrize(("case",), mostly_slow([(case,) for case in cases()], KINDS))
def test_a_search_that_stops_within_an_epoch_or_behind_one_ends_with_the_same_bits(
    case: Case, tmp_path: Path
) -> None:
    whole = walk(case, tmp_path / "whole")
    kept = int(max((tmp_path / "whole").iterdir()).name[:8])
    for stop_at in {1, kept // 2, kept - 1}:
        folder = tmp_path / str(stop_at)
        given = walk(case, folder, stop_at)
        assert given + walk(case, folder) == whole
        expected, found = last(tmp_path / "whole", case), last(folder, case)
        assert expected.keys() == found.keys() and {"sgd", "adam"} & {name[:4].strip(".") for name in found}
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_search_that_has_ended_gives_nothing_more(tmp_path: Path) -> None:
    case = "darts", "none", "magnitude"
    walk(case, tmp_path)
    assert walk(case, tmp_path) == []


@pytest.mark.processes
def test_processes_that_are_killed_at_random_moments_go_on() -> None:
    program = [sys.executable, str(ROOT / "tests" / "soak.py"), "3", "1"]
    ran = subprocess.run(program, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "3 kills over 3 searches, seed 1: all ended with the same bits"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The search of COMMAND, left alone."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*COMMAND, "--out", str(out)]) == 0
    return out


@pytest.mark.processes
def test_sigterm_ends_the_step_keeps_it_and_exits_with_143(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "told"
    words = [sys.executable, "-m", "dots_zoo", *COMMAND, "--out", str(out)]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})  # as many as here
    while not (out / "checkpoint").is_dir() or not any((out / "checkpoint").iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert not (out / "genotype.json").exists()
    assert main([*COMMAND, "--out", str(out), "--resume"]) == 0
    assert same(outcome(whole), outcome(out))
    seconds = [json.loads(line)["seconds"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((out / "run.json").read_text())["wall_seconds"] == round(sum(seconds), 1)


def test_a_search_goes_on_from_the_checkpoint_before_one_with_a_flipped_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = "darts", "none", "magnitude"
    walk(case, tmp_path / "whole")
    folder = tmp_path / "flipped"
    walk(case, folder, 3)
    before, newest = sorted(folder.iterdir())
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    walk(case, folder)
    assert f"{newest}: not a checkpoint (" in (said := capsys.readouterr().out)
    assert f"resuming from {before}" in said
    expected, found = last(tmp_path / "whole", case), last(folder, case)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_where_no_checkpoint_is_left_whole_the_search_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    (out / "checkpoint").mkdir(parents=True)
    torn = out / "checkpoint" / "00000001-0123456789abcdef.safetensors"
    torn.write_bytes(b"torn")
    assert main([*COMMAND, "--out", str(out), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"{torn}: not a checkpoint (" in said and f"remove {out / 'checkpoint'} to begin anew" in said
    assert [path.name for path in out.iterdir()] == ["checkpoint"] and torn.read_bytes() == b"torn"


def on_a_disk(folder: Path, options: str) -> bool:
    """Mount a disk in memory there, or change it; False where that is not allowed."""
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return bool(shutil.which("mount")) and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.processes
def test_a_search_whose_disk_is_full_goes_on_once_there_is_room(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not on_a_disk(disk, "size=440k"):  # two checkpoints fit, a third does not
        pytest.skip("a small disk cannot be mounted here")
    try:
        assert main([*COMMAND, "--out", str(disk / "run")]) == 2
        said = capsys.readouterr().err
        assert "cannot be written (" in said and "No space left on device" in said
        assert not (disk / "run" / "genotype.json").exists()
        kept = sorted((disk / "run" / "checkpoint").iterdir())
        assert kept and on_a_disk(disk, "remount,size=64m")
        assert main([*COMMAND, "--out", str(disk / "run"), "--resume"]) == 0
        assert same(outcome(whole), outcome(disk / "run"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_another_search_does_not_go_on_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    assert main([*COMMAND, "--out", out, "--resume"]) == 0  # begins where there is nothing
    before = {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
    assert main([*COMMAND, "--training.seed", "1", "--out", out, "--resume"]) == 2
    assert "made with training.seed 0, expected 1; pass the same options" in capsys.readouterr().err
    assert main([*COMMAND, "--out", out]) == 2
    assert "choose another, or pass --resume" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()} == before


def test_what_is_not_finite_is_not_kept_and_the_last_checkpoint_is_named(tmp_path: Path) -> None:
    name = "darts"
    config = configuration(name)
    wild = replace(config.training, weights=replace(config.training.weights, learning_rate=1e30))
    stages = plan(name, replace(config, training=wild), derivation("none", "magnitude"), DARTS)
    checkpoints = CheckpointManager(tmp_path, 0.0)
    told = (
        r"search, stage 'operation search', epoch 0, step \d+: expected a finite .*, got (nan|inf); lower .*"
    )
    with pytest.raises(DotsZooError, match=told) as caught:
        list(run_stages(stages, run_of(wild, toy_data(64)), checkpoints=checkpoints, progress=False))
    assert checkpoints.last is not None and str(caught.value).endswith(
        f"the last checkpoint is {checkpoints.last}"
    )
    saved = load_state(tmp_path, {})
    assert saved is not None and saved.path == checkpoints.last
    assert all(tensor.isfinite().all() for tensor in saved.tensors["seen"])


def test_a_search_without_a_keeper_keeps_nothing() -> None:
    assert [epoch.epoch for epoch in search_toy("darts", epochs=1, warm_up=0)] == [0]
