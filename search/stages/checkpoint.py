"""Save and load the state of a search: everything that its next step depends on.

Draws depend on the seed, the epoch and the step alone (`dots_zoo/runtime/seeding.py`), so no random state is
saved. The supernet is rebuilt from its space and its shape, which in later stages depend on earlier
decisions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dots_zoo.runtime.checkpoint_files import Saved, load_state, save_state
from dots_zoo.runtime.distributed import ALONE, Processes
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.sigterm import STATUS

from ..space.space import CellSpace, Choice, SearchSpace
from ..supernet import PartialChannels, Shape
from .init_stage import adam, build_supernet, sgd
from .stage import Figures, Run, Search


@dataclass(frozen=True)
class Progress:
    """The position of a search: its next step is `step` of round `done` of stage `stage`.

    Args:
        stage: index of the stage.
        done: completed rounds of the stage; a round is an epoch, or a decision.
        epoch: index of the epoch over all stages.
        step: steps completed in the epoch.
        logged_epochs: Epochs given so far.
        seconds: time spent in the epoch so far.
    """

    stage: int = 0
    done: int = 0
    epoch: int = 0
    step: int = 0
    logged_epochs: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class RunState:
    """A search in progress.

    Args:
        progress: its position.
        search: its state.
        seen: figures of the completed steps of the epoch.
    """

    progress: Progress
    search: Search
    seen: Sequence[Figures] = ()


@dataclass
class CheckpointManager:
    """The writer of checkpoints: after every round, and within a round after a step that is due.

    With several processes the first one writes, and all end when any of them has been told to.

    Args:
        folder: of the checkpoints.
        seconds: between two checkpoints; 0 writes one after every step.
        identity: settings that a search has to share with a checkpoint to resume from it.
        stop: returns True once the process has been told to end; it does so after the step, once that is
            saved.
        stages_folder: folder for the search as a stage left it; these files stay.
        last: the latest checkpoint.
        saved_at: time of the latest checkpoint, monotonic.
    """

    folder: Path
    seconds: float = 300.0
    identity: Mapping[str, Any] = field(default_factory=dict)
    stop: Callable[[], bool] = lambda: False
    stages_folder: Path | None = None
    last: Path | None = None
    saved_at: float = field(default_factory=time.monotonic)

    def load_latest(self, processes: Processes = ALONE) -> Saved | None:
        """Return the latest checkpoint that can be used, None if there is none; warn about damaged files.

        Raises:
            DotsZooError: if there are checkpoints and none can be used.
        """
        state = load_state(self.folder, self.identity)
        if state is None:
            return None
        processes.refuse_another_number(state.path, state.facts)
        self.last = state.path
        for sentence in state.damaged if processes.first else ():
            print(f"{sentence}; going on from {self.last}")
        return state

    def save(self, run_state: RunState, processes: Processes) -> None:
        """Write a checkpoint.

        Raises:
            SystemExit: after writing, if a process has been told to end.
        """
        processes.first_does(lambda: self._write(run_state, processes.count))
        self.saved_at = time.monotonic()
        if processes.any(self.stop()):
            raise SystemExit(STATUS)

    def _write(self, run_state: RunState, processes: int) -> None:
        facts = {**state_facts(run_state), "processes": processes}
        self.last = save_state(self.folder, state_tensors(run_state), facts, self.identity)

    def save_stage(self, name: str, run_state: RunState, processes: Processes) -> None:
        """Write the search under a name of its own, which later checkpoints do not replace."""
        if self.stages_folder is not None:
            processes.first_does(partial(self._write_stage, self.stages_folder / name, run_state))

    def _write_stage(self, folder: Path, run_state: RunState) -> None:
        with suppress(OSError):  # save_state reports what is wrong
            folder.parent.mkdir(exist_ok=True)
        save_state(folder, state_tensors(run_state), state_facts(run_state), self.identity)

    def is_due(self, processes: Processes) -> bool:
        """Return True if a checkpoint is due after the current step."""
        return processes.any(self.stop() or time.monotonic() - self.saved_at >= self.seconds)


def state_tensors(run_state: RunState) -> dict[str, Tensor]:
    """Return every tensor of a search in progress, by its name in a file."""
    search = run_state.search
    tensors = {f"supernet.{name}": tensor for name, tensor in search.supernet.state_dict().items()}
    tensors |= {f"logits.{name}": tensor for name, tensor in search.logits.items()}
    tensors |= {f"candidate_mask.{name}": tensor for name, tensor in search.candidate_mask.items()}
    tensors |= {f"method_state.{name}": tensor for name, tensor in search.method_state.items()}
    tensors |= {f"resting.{name}": tensor for name, tensor in search.resting.items()}
    tensors |= _optimiser_tensors("sgd", search.weights_optimiser, search.supernet.named_parameters())
    tensors |= _optimiser_tensors("adam", search.logits_optimiser, search.logits.items())
    if scalars := [scalar for figures in run_state.seen for scalar in figures.values()]:
        tensors["seen"] = torch.stack(scalars)
    return tensors


def _optimiser_tensors(optimiser_name: str, optimiser: Optimizer, named: Any) -> dict[str, Tensor]:
    return {
        f"{optimiser_name}.{key}.{name}": tensor
        for name, parameter in named
        for key, tensor in optimiser.state[parameter].items()
        if tensor is not None
    }


def state_facts(run_state: RunState) -> dict[str, Any]:
    """Return everything that is not a tensor, as JSON values."""
    search = run_state.search
    return {
        "progress": asdict(run_state.progress),
        "space": asdict(search.space),
        "shape": asdict(search.supernet.shape),
        "choices": {name: asdict(choice) for name, choice in search.choices.items()},
        "figures": [list(figures) for figures in run_state.seen],
    }


def restore_run_state(saved: Saved, run: Run) -> RunState:
    """Return the search that a checkpoint holds, on the run's device.

    Raises:
        DotsZooError: if it was written by another version or is not that of a search.
    """
    device, facts = run.accelerator.device, saved.facts
    tensors = {name: tensor.to(device) for name, tensor in saved.tensors.items()}
    try:
        search = _search(facts, tensors, run)
        scalars = iter(tensors.get("seen", torch.empty(0)))
        seen = [{name: next(scalars) for name in names} for names in facts["figures"]]
        return RunState(Progress(**facts["progress"]), search, seen)
    except (KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise DotsZooError(
            f"{saved.path}: not where a search stands, in the version of this dots_zoo ({error})"
        ) from error


def _search(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], run: Run) -> Search:
    space, choices = _space(facts["space"]), {name: _choice(c) for name, c in facts["choices"].items()}
    shape = Shape(**{**facts["shape"], "partial": PartialChannels(**facts["shape"]["partial"])})
    supernet = build_supernet(space, shape, run)
    supernet.load_state_dict(_under("supernet.", tensors))
    logits = {name: nn.Parameter(tensors[f"logits.{name}"]) for name in choices}
    search = Search(
        space=space,
        choices=choices,
        supernet=supernet,
        logits=logits,
        candidate_mask={name: tensors[f"candidate_mask.{name}"].cpu() for name in choices},
        weights_optimiser=sgd(supernet, run.training),
        logits_optimiser=adam(logits.values(), run.training),
    )
    _restore("sgd", search.weights_optimiser, dict(supernet.named_parameters()), tensors)
    _restore("adam", search.logits_optimiser, logits, tensors)
    method_state, resting = (
        {name: tensor.cpu() for name, tensor in _under(prefix, tensors).items()}
        for prefix in ("method_state.", "resting.")
    )
    return replace(search, method_state=method_state, resting=resting)


def _restore(
    optimiser_name: str,
    optimiser: Optimizer,
    named: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    for name, tensor in _under(f"{optimiser_name}.", tensors).items():
        key, _, of = name.partition(".")
        if tensor.shape == named[of].shape:  # in the parameter's memory format, so that sums round alike
            tensor = torch.empty_like(named[of]).copy_(tensor).detach()
        optimiser.state[named[of]][key] = tensor.cpu() if key == "step" else tensor


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _space(table: Mapping[str, Any]) -> SearchSpace:
    cells = tuple(CellSpace(c["cell_type"], tuple(map(tuple, c["candidates"]))) for c in table["cells"])
    return SearchSpace(table["intermediate"], cells, table["family"])


def _choice(table: Mapping[str, Any]) -> Choice:
    return Choice(tuple(table["rows"]), tuple(map(tuple, table["labels"])))
