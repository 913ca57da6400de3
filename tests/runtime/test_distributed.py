"""Two processes are one: the same weights and logits, files, decisions, and the same bits after a stop."""

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from dots_zoo.commands.cli import main
from dots_zoo.runtime.distributed import Processes, disconnecting, processes_of
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.dropnas import dropped, sample_dropout, update_kept_logits
from dots_zoo.search.methods.registry import METHODS
from dots_zoo.search.stages.checkpoint import CheckpointManager, Progress, RunState, state_tensors
from dots_zoo.search.stages.loop import batches, run_of
from dots_zoo.search.stages.stage import Batch, StepContext, StepIndex
from dots_zoo.search.stages.steps import classify, update_logits, update_weights
from dots_zoo.search.supernet import Mixture
from dots_zoo.train.run import run_training
from helpers.paths import ROOT
from helpers.quiet_search import quiet_stages
from helpers.striped_images import stripes
from helpers.toy_search import toy_data
from helpers.two_processes import RECIPE, SMALL, shared

pytestmark = pytest.mark.processes

TESTS = ROOT / "tests"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two_processes.py has left behind."""
    folder = tmp_path_factory.mktemp("two")
    program = [sys.executable, "-m", "helpers.two_processes", str(folder)]
    done = subprocess.run(
        program, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=TESTS
    )
    assert done.returncode == 0, done.stderr
    return folder


def told(ran: Path, scenario: str, name: str) -> list[Any]:
    """A JSON file of both processes."""
    return [json.loads((ran / scenario / f"{name}{rank}.json").read_text()) for rank in range(2)]


def statuses(ran: Path, scenario: str) -> Any:
    return json.loads((ran / scenario / "statuses.json").read_text())


def errors(ran: Path, scenario: str) -> list[list[str]]:
    return [(ran / scenario / f"stderr{rank}").read_text().splitlines() for rank in range(2)]


def mean_gradients(
    context: StepContext, batch: Batch, mix: Callable[[StepContext], Mixture], constant: bool = False
) -> None:
    """Both halves of a batch, each on a copy of the supernet with statistics of its own; the turn's search is
    given the means of their gradients and of their running statistics.
    """
    search, copies = context.search, []
    for images, labels in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
        supernet = copy.deepcopy(search.supernet).requires_grad_(not constant)
        logits = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in search.logits.items()}
        half = replace(context, search=replace(search, supernet=supernet, logits=logits))
        classify(half, (images, labels), mix(half))[0].backward()
        copies.append(([*supernet.parameters(), *logits.values()], list(supernet.buffers())))
    (one, its), (other, others) = copies
    for target, a, b in zip(
        [*search.supernet.parameters(), *search.logits.values()], one, other, strict=True
    ):
        if a.grad is not None and b.grad is not None:
            target.grad = torch.empty_like(target).copy_((a.grad + b.grad) / 2)
    for buffer, a, b in zip(search.supernet.buffers(), its, others, strict=True):
        buffer.copy_((a + b) / 2 if buffer.is_floating_point() else a)


def constant_mixture(context: StepContext) -> Mixture:
    with torch.no_grad():
        return context.mixture()


def dots_step(stage: str, context: StepContext) -> None:
    if context.architecture_batch is not None:
        mean_gradients(context, context.architecture_batch, StepContext.mixture, constant=True)
        update_logits(context)
    one_level = stage == "topology search"
    mean_gradients(context, context.batch, StepContext.mixture if one_level else constant_mixture)
    update_weights(context)
    if one_level:
        update_logits(context)


def dropnas_step(stage: str, context: StepContext) -> None:
    config = METHODS["dropnas"].config(r_p=0.3, r_np=0.3)
    kept = sample_dropout(config, context)
    mean_gradients(context, context.batch, lambda half: dropped(config, half, kept))
    update_weights(context)
    update_kept_logits(config, context, kept)


def in_one_process(method: str) -> dict[str, Tensor]:
    """The search of two processes, one half batch after the other."""
    stages, training = quiet_stages(method)
    data = toy_data(64)
    run = run_of(training, data)
    search, epoch = None, 0
    for stage in stages:
        search = stage.initialise(run, search, StepIndex(training.seed, epoch))
        for _ in range(stage.epochs):
            search.weights_optimiser.param_groups[0]["lr"] = stage.learning_rate(epoch)
            first, part = list(batches(stage, stage.images, run, epoch)), stage.architecture_images
            second = list(batches(stage, part, run, epoch)) if part else [None] * len(first)
            rest = stage.rest(search, StepIndex(training.seed, epoch), len(first)) if stage.rest else {}
            search = replace(search, resting=rest)
            for step, (batch, other) in enumerate(zip(first, second, strict=False)):
                context = StepContext(
                    run, search, stage.relax(search), StepIndex(training.seed, epoch, step), batch, other
                )
                (dots_step if method == "dots" else dropnas_step)(stage.name, context)
            epoch += 1
    return state_tensors(RunState(Progress(), search))


@pytest.mark.parametrize("method", ["dots", "dropnas"])
def test_they_equal_one_that_averages_the_gradients_of_two_half_batches(method: str, ran: Path) -> None:
    """Bit by bit: weights, alphas, betas, moments of both optimisers, running statistics, in both of them."""
    expected = in_one_process(method)
    assert statuses(ran, method) == [[0, 0]]
    for rank in range(2):
        found = load_file(ran / method / f"found{rank}.safetensors")
        assert found.keys() == expected.keys()
        unequal = [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
        assert unequal == []
    first, second = told(ran, method, "figures")
    assert [{**row, "seconds": 0} for row in first] == [{**row, "seconds": 0} for row in second]


def test_a_stopped_search_goes_on_in_as_many_processes_with_the_same_bits(ran: Path) -> None:
    """SIGTERM reaches the second process alone, SIGKILL later; second order, augmentation and noise."""
    stopped, ended, gone_on = statuses(ran, "stopped")
    assert (stopped, gone_on) == ([143, 143], [0, 0])
    assert -9 in ended and 0 not in ended  # the last one alive may see the other go before it is killed
    whole, stopped = (load_file(max((ran / name / "checkpoint").iterdir())) for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())
    for name in ("whole", "stopped"):
        first, second = told(ran, name, "cells")
        assert first == second
    assert told(ran, "stopped", "cells")[0] == told(ran, "whole", "cells")[0]


def test_a_search_does_not_go_on_in_another_number_of_processes(ran: Path) -> None:
    checkpoints = CheckpointManager(ran / "whole" / "checkpoint", identity={"name": "darts second"})
    with pytest.raises(
        DotsZooError, match=r"expected 2 processes, as in the run that wrote it, got 1: .*--num_processes 2"
    ):
        checkpoints.load_latest()
    checkpoints.load_latest(Processes(0, 2, group="not used"))


def test_decisions_by_accuracy_are_the_same_in_both(ran: Path) -> None:
    """Validation, the best epoch of DARTS- and perturbation-based selection."""
    first, second = told(ran, "selection", "cells")
    assert first == second and len(first) > 2


def test_what_concerns_the_architecture_is_drawn_alike_and_what_concerns_images_apart(ran: Path) -> None:
    first, second = told(ran, "draws", "draws")
    for (a, alike, images), (b, same, others) in zip(first, second, strict=True):
        assert alike == same and a != b and images != others


def test_a_loss_that_is_not_finite_ends_both_with_one_message(ran: Path) -> None:
    assert statuses(ran, "wild") == [[2, 2]]
    [[message], nothing] = errors(ran, "wild")
    assert "got nan" in message or "got inf" in message
    assert nothing == []


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("unshared", "expected a batch that 2 processes can share, got 15 images; change the batch size"),
        ("full", "cannot be written"),
    ],
)
def test_what_cannot_be_done_ends_both_with_one_message(scenario: str, message: str, ran: Path) -> None:
    assert statuses(ran, scenario) == [[2, 2]]
    [[told], nothing] = errors(ran, scenario)
    assert message in told and nothing == []


@pytest.mark.gpu_stub
def test_what_they_agree_about_has_a_group_of_its_own_on_gpus(ran: Path) -> None:
    assert told(ran, "apart", "told") == [["gloo", True, True, False, True, False]] * 2


def test_a_training_in_two_processes_writes_one_folder_and_goes_on_with_the_same_bits(ran: Path) -> None:
    assert statuses(ran, "training") == [[0, 0]] and statuses(ran, "training stopped") == [[143, 143], [0, 0]]
    whole, stopped = ran / "training" / "run", ran / "training stopped" / "run"
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (whole, stopped)]
    rows = [[{**json.loads(line), "seconds": 0} for line in found] for found in lines]
    assert rows[0] == rows[1] and [row["epoch"] for row in rows[0]] == [0, 1]
    weights = [load_file(path / "model.safetensors") for path in (whole, stopped)]
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())
    assert not [path for path in whole.rglob("*") if path.name.startswith(".")]
    assert len(list((whole / "tensorboard").iterdir())) == 1


def test_each_trains_on_its_share_of_every_batch(ran: Path) -> None:
    alone = ran / "alone"
    alone.mkdir()
    shared(0, alone)
    whole = json.loads((alone / "seen0.json").read_text())
    assert [[*a, *b] for a, b in zip(*told(ran, "shared", "seen"), strict=True)] == whole
    assert [len(batch) for batch in whole] == [16] * 8


def test_a_training_does_not_go_on_in_another_number_of_processes(ran: Path) -> None:
    with pytest.raises(DotsZooError, match="expected 2 processes, as in the run that wrote it, got 1"):
        run_training(
            "darts_v1", SMALL, stripes(), RECIPE, ran / "training" / "run", resume=True, progress=False
        )


def test_a_process_that_is_not_connected_to_the_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DotsZooError, match="expected 2 connected processes.* set ACCELERATE_USE_CPU=true"):
        processes_of(Accelerator())


def test_a_launcher_that_started_one_process_of_several_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}.items():
        monkeypatch.setenv(name, value)  # as accelerate launch --cpu --num_processes 2 does
    with pytest.raises(DotsZooError, match="starts one process, whatever --num_processes says"):
        processes_of(Accelerator())


def test_each_takes_its_share_of_every_batch() -> None:
    stages, training = quiet_stages("dropnas")
    data = toy_data(64)
    alone, *shares = (
        list(batches(stages[0], "all", replace(run_of(training, data), processes=processes), 0))
        for processes in (Processes(), Processes(0, 2), Processes(1, 2))
    )
    assert len(alone) == 4
    for (images, labels), (a, la), (b, lb) in zip(alone, *shares, strict=True):
        assert torch.equal(torch.cat([a, b]), images) and torch.equal(torch.cat([la, lb]), labels)


def test_accelerate_launch_searches_in_two_processes_that_print_and_write_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["-m", "dots_zoo", "search", "dropnas", "--space", "S2", "--epochs", "1", "--layers", "3"]
    command += ["--channels", "2", "--training.batch-size", "720", "--out", str(tmp_path / "run")]
    on_cpu = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=on_cpu, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    kept = [path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()]
    assert kept and all(re.search(rb'"processes\\?": 2', content) for content in kept)
    assert done.stdout.count("written to") == 1 and done.stdout.count("Genotype(") == 1
    assert {path.name for path in (tmp_path / "run" / "genotypes").iterdir()} == {"000.json"}
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


WAYS_OUT = [None, SystemExit(143), DotsZooError("told"), KeyError("alone")]


@pytest.mark.gpu_stub
@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_behind_a_command_no_process_is_connected(
    way_out: BaseException | None, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where nccl would wait for others that may never come: they did not end all alike."""
    monkeypatch.setattr(dist, "get_backend", lambda: backend)

    @disconnecting()
    def command() -> None:
        if way_out is not None:
            raise way_out

    with nullcontext() if way_out is None else pytest.raises(type(way_out)):
        command()
    assert dist.is_initialized() == (backend == "nccl" and way_out is not None)


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("command", ["search", "train", "det", "seg"])
def test_so_it_is_behind_every_command_that_several_processes_run(command: str) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert not dist.is_initialized()
