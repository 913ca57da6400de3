"""Two real processes, connected by gloo: python -m helpers.two_processes FOLDER (in tests/)

Every scenario is run by two forked processes and leaves its files in FOLDER/scenario: what each of them
printed to stderr, what it found, and the statuses that both ended with.
"""

import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dots_zoo.data.augment import Augmentation
from dots_zoo.network import CellNet
from dots_zoo.runtime.distributed import processes_of
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.sigterm import sigterm_flag
from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.stages.checkpoint import CheckpointManager, Progress, RunState, state_tensors
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.search.stages.stage import Figures, Search, Stage, StepContext
from dots_zoo.train.loop import fit
from dots_zoo.train.model import ModelOptions
from dots_zoo.train.run import run_training
from helpers.quiet_search import quiet_stages
from helpers.short_searches import DARTS, configuration, derivation
from helpers.striped_images import PLAIN, shades, shades_of, stripes
from helpers.toy_search import toy_data

Act = Callable[[int, Path], None]
SMALL = ModelOptions(channels=4, layers=3)
RECIPE = replace(PLAIN, drop_path_rate=0.3, ema_decay=0.9, mixup=0.2, augmentation=Augmentation())


def both(act: Act, folder: Path) -> list[int]:
    """Let two processes act, and kill one where the other is killed: what both end with, minus a signal."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    pids = [_begin(act, folder, rank, port) for rank in range(2)]
    statuses: dict[int, int] = {}
    while len(statuses) < 2:
        pid, status = os.wait()
        statuses[pid] = os.waitstatus_to_exitcode(status)
        if statuses[pid] == -signal.SIGKILL:
            for other in set(pids) - statuses.keys():
                os.kill(other, signal.SIGKILL)
    return [statuses[pid] for pid in pids]


def _begin(act: Act, folder: Path, rank: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    status = 1
    try:
        with open(folder / f"stderr{rank}", "a", buffering=1) as sys.stderr:
            try:
                act(rank, folder)
                status = 0
            except DotsZooError as error:
                print(error, file=sys.stderr)
                status = error.exit_code
            except SystemExit as error:
                status = int(str(error.code))
    finally:
        os._exit(status)


def watched(stages: Sequence[Stage], found: dict[str, Tensor]) -> list[Stage]:
    """The same stages; `found` holds all tensors of the search behind every epoch."""

    def after(stage: Stage, search: Search, *rest: Any) -> Search:
        search = stage.after(search, *rest)
        found.clear()
        now = state_tensors(RunState(Progress(), search))
        found.update({k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in now.items()})
        return search

    return [replace(stage, after=partial(after, stage)) for stage in stages]


def quiet(method: str, rank: int, folder: Path) -> None:
    """A search without augmentation, which one process can repeat."""
    stages, training = quiet_stages(method)
    found: dict[str, Tensor] = {}
    epochs = list(run_stages(watched(stages, found), run_of(training, toy_data(64)), progress=False))
    save_file(found, folder / f"found{rank}.safetensors")
    (folder / f"figures{rank}.json").write_text(json.dumps([dict(epoch.figures) for epoch in epochs]))


def noisy(name: str, selection: str, stop: tuple[int, int] | None, rank: int, folder: Path) -> None:
    """A search that draws all it can, from its checkpoint on. stop: a signal, and behind how many steps the
    second process sends it to itself.
    """
    config, taken = configuration(name), []
    training = replace(config.training, augmentation=Augmentation(crop_padding=2), batch_size=4)
    stages = plan(name.split()[0], replace(config, training=training), derivation("none", selection), DARTS)

    def step(stage: Stage, context: StepContext) -> Figures:
        taken.append(context)
        if stop and rank == 1 and len(taken) == stop[1]:
            os.kill(os.getpid(), stop[0])
        return stage.step(context)

    stages = tuple(replace(stage, step=partial(step, stage)) for stage in stages)
    processes = processes_of(Accelerator(mixed_precision="no"))
    with sigterm_flag() as told:
        checkpoints = CheckpointManager(folder / "checkpoint", 0.0, {"name": name}, told)
        saved = checkpoints.load_latest(processes)
        run = run_of(training, toy_data(16))
        epochs = list(run_stages(stages, run, checkpoints=checkpoints, saved=saved, progress=False))
    cells = [{kind: str(cell) for kind, cell in epoch.cells.items()} for epoch in epochs]
    (folder / f"cells{rank}.json").write_text(json.dumps(cells))


def draws(rank: int, folder: Path) -> None:
    """What a step draws globally, what the step index draws, and which images it sees."""
    stages, training = quiet_stages("dropnas")
    training, seen = replace(training, augmentation=Augmentation(crop_padding=2)), []

    def step(context: StepContext) -> Figures:
        alike = torch.rand((), generator=context.step_index.generator("any")).item()
        seen.append([torch.rand(()).item(), alike, context.batch[0].sum().item()])
        return {"loss": torch.zeros(())}

    data = toy_data(64)
    data = replace(data, images=data.images[:1].expand(64, 1, 8, 8))
    list(run_stages([replace(stage, step=step) for stage in stages], run_of(training, data), progress=False))
    (folder / f"draws{rank}.json").write_text(json.dumps(seen))


def wild(rank: int, folder: Path) -> None:
    """A loss that is not finite."""
    config = configuration("darts")
    weights = replace(config.training.weights, learning_rate=1e30)
    training = replace(config.training, weights=weights, batch_size=4)
    stages = plan("darts", replace(config, epochs=3, training=training), Derivation(), DARTS)
    checkpoints = CheckpointManager(folder / "checkpoint", 0.0)
    list(run_stages(stages, run_of(training, toy_data(32)), checkpoints=checkpoints, progress=False))


def unshared(rank: int, folder: Path) -> None:
    """A batch that two cannot share."""
    stages, training = quiet_stages("dropnas")
    run_stages([replace(stages[0], batch_size=15)], run_of(training, toy_data(64)), progress=False)


def full(rank: int, folder: Path) -> None:
    """A checkpoint that the first cannot write: a file stands where its folder should."""
    (folder / "checkpoint").write_text("")
    stages, training = quiet_stages("dropnas")
    checkpoints = CheckpointManager(folder / "checkpoint")
    list(run_stages(stages, run_of(training, toy_data(64)), checkpoints=checkpoints, progress=False))


def apart(rank: int, folder: Path) -> None:
    """On a GPU nccl cannot send what lies on the CPU, which goes by gloo."""
    Accelerator()
    gpu: Any = SimpleNamespace(num_processes=2, process_index=rank, device=torch.device("cuda"))
    processes = processes_of(gpu)
    told = [processes.any(rank == 1), processes.any(False), processes.agree("a"), processes.agree(str(rank))]
    found = [torch.distributed.get_backend(processes.group), processes.group is not None, *told]
    (folder / f"told{rank}.json").write_text(json.dumps(found))


def training(stop: int | None, rank: int, folder: Path) -> None:
    """A training that draws all it can; the second process is told to end within a step."""
    steps = itertools.count(1)

    def tell(*step: Any) -> None:
        if rank == 1 and next(steps) == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    register_optimizer_step_pre_hook(tell)
    run_training("darts_v1", SMALL, stripes(), RECIPE, folder / "run", resume=True, progress=False)


def shared(rank: int, folder: Path) -> None:
    """A training of a network that writes down which images it sees."""
    network, seen = CellNet("darts_v1", "cifar", 4, 3, num_classes=2), []

    def see(module: CellNet, inputs: tuple[Tensor]) -> None:
        if module.training:
            seen.append(shades_of(inputs[0]))

    network.register_forward_pre_hook(see)
    fit(network, shades(), PLAIN, progress=False)
    (folder / f"seen{rank}.json").write_text(json.dumps(seen))


SEARCH = ("darts second", "magnitude")
TERM, KILL = (signal.SIGTERM, 1), (signal.SIGKILL, 1)
SCENARIOS: dict[str, Sequence[Act]] = {
    "dots": [partial(quiet, "dots")],
    "dropnas": [partial(quiet, "dropnas")],
    "whole": [partial(noisy, *SEARCH, None)],
    "stopped": [partial(noisy, *SEARCH, TERM), partial(noisy, *SEARCH, KILL), partial(noisy, *SEARCH, None)],
    "selection": [partial(noisy, "darts_minus", "perturbation", None)],
    "draws": [draws],
    "wild": [wild],
    "unshared": [unshared],
    "full": [full],
    "apart": [apart],
    "shared": [shared],
    "training": [partial(training, None)],
    "training stopped": [partial(training, 3), partial(training, None)],
}


def main(folder: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    for name in names or SCENARIOS:
        found = [both(act, folder / name) for act in SCENARIOS[name]]
        (folder / name / "statuses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
