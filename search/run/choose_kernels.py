"""Choice of kernels for a search, by the time that they save and take: `--training.kernels auto`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor, nn

from dots_zoo.macs import count

from ..stages.loop import steps_of
from ..stages.stage import Run, Stage, StepContext, StepIndex
from ..supernet import Mixture, Supernet
from ..supernet.install_kernels import can_install, check_can_install

# Both of one thread of an AMD Zen 4 (2026-12-01); a slower processor takes and saves more.
COMPILE_SECONDS = 10.0  # on a machine that has compiled none of them yet (benchmarks/two_checkouts.py)
# In a step, for every 10^9 MACs of a forward pass (benchmarks/saved_seconds.py): a bilevel step saves 0.4,
# a topology step half of it with 16 channels and less with 4.
SAVED_SECONDS = 0.4


def resolve_kernels(
    kernels: Literal["auto", "on", "off"], stages: Sequence[Stage], run: Run, folders: Sequence[Path]
) -> Literal["on", "off"]:
    """Return on or off, and print why where it was auto.

    Args:
        kernels: option of the search.
        stages: of one search.
        run: its constants.
        folders: of all searches that share the decision; one that has begun before has made it already.

    Raises:
        DotsZooError: if the kernels are to be on and cannot be installed.
    """
    if kernels == "auto":
        kernels, reason = _decide(stages, run, folders)
        if run.processes.first:
            print(f"kernels: {kernels}, {reason}")
    if kernels == "on":
        check_can_install(run.accelerator.device)
    return kernels


def _decide(stages: Sequence[Stage], run: Run, folders: Sequence[Path]) -> tuple[Literal["on", "off"], str]:
    for folder in folders:
        before = _decision_of(folder / "config.yaml")
        if before is not None:
            return before, f"as in {folder / 'config.yaml'}"
    if run.accelerator.device.type != "cpu":
        return "off", f"there are none for the device {run.accelerator.device}"
    if not can_install(run.accelerator.device):
        return "off", "numba, which compiles them, is not installed"
    steps = len(folders) * sum(stage.epochs * steps_of(stage, run) for stage in stages)
    saved = steps * SAVED_SECONDS * _macs_of_a_step(stages[0], run) / 1e9 if steps else 0.0
    pays = saved > COMPILE_SECONDS
    reason = f"which save about {saved:.0f} s in {steps} steps and take {COMPILE_SECONDS:.0f} s to compile"
    return "on" if pays else "off", reason


def _decision_of(path: Path) -> Literal["on", "off"] | None:
    """Return the decision in a config.yaml, None if there is none, or none that can be read."""
    try:
        kernels = yaml.safe_load(path.read_text("utf-8"))["training"]["kernels"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return cast(Literal["on", "off"], kernels) if kernels in ("on", "off") else None


class _Mixed(nn.Module):
    """A supernet with its mixture, as a module of images alone."""

    def __init__(self, supernet: Supernet, mixture: Mixture) -> None:
        super().__init__()
        self.supernet, self.mixture = supernet, mixture

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.supernet(images, self.mixture)
        return out


def _macs_of_a_step(first: Stage, run: Run) -> int:
    """Return the MACs of a forward pass over a whole batch in the first step of the first stage."""
    step_index = StepIndex(run.seed, 0)
    search = first.initialise(run, None, step_index)
    relaxation = first.relax(search)
    sampled_ops = relaxation.sampled_ops(search.logits, step_index)
    batch = run.data.labels[:0], run.data.labels[:0]  # no step is taken
    context = StepContext(run, search, relaxation, step_index, batch, None, sampled_ops)
    with torch.no_grad():
        mixed = _Mixed(search.supernet, context.mixture())
    size = run.data.in_chans, run.data.size, run.data.size
    return count(mixed, size, first.batch_size).macs
