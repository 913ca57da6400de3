"""Save the state of a training to a checkpoint (runtime/checkpoint_files.py) and load it back.

Draws depend on the seed, the epoch and the step alone (runtime/seeding.py), so no random state is saved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..runtime.checkpoint_files import load_state, save_state
from ..runtime.distributed import ALONE, Processes
from ..runtime.errors import DotsZooError
from .recipe import Recipe

Row = dict[str, float]  # a row of metrics.jsonl: the metrics of an epoch

IMAGES = ("validation", "test")  # whose figures a row may have


@dataclass
class State:
    """The state of a network in training; its next step is `step` of `epoch`."""

    model: nn.Module
    optimiser: torch.optim.SGD
    ema: ModelEmaV3 | None
    totals: Tensor  # (3,): loss, hits, images so far in this epoch
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0  # training time in this epoch, over all runs
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch by validation, on a CPU

    @property
    def kept(self) -> nn.Module:
        """Return the network that is evaluated and saved: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def keep_best(self) -> None:
        """Keep a copy of the weights as those of the best epoch."""
        self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.weights().items()}

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated, without the auxiliary head."""
        weights = self.kept.state_dict()
        return {name: tensor for name, tensor in weights.items() if not name.startswith("aux_head.")}


def best_epoch(history: Sequence[Row]) -> int | None:
    """Return the epoch of the highest validation accuracy, of equals that of the lowest loss, then the first.

    None where there was no validation.
    """
    rows = [row for row in history if "validation_accuracy" in row]
    best = max(rows, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]), default=None)
    return None if best is None else int(best["epoch"])


def fresh_state(model: nn.Module, recipe: Recipe) -> State:
    """Return the state before the first step."""
    optimiser = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    ema = ModelEmaV3(model, recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    return State(model, optimiser, ema, torch.zeros(3, device=next(model.parameters()).device))


def save_checkpoint(state: State, folder: Path, identity: Mapping[str, Any], processes: int = 1) -> None:
    """Write a checkpoint atomically.

    identity and processes: what a training must share with the checkpoint to resume from it.
    """
    facts = {
        "processes": processes,
        "epoch": state.epoch,
        "step": state.step,
        "seconds": state.seconds,
        "history": state.history,
    }
    save_state(folder, _tensors(state), facts, identity)


def load_checkpoint(
    state: State, folder: Path, identity: Mapping[str, Any], processes: Processes = ALONE
) -> None:
    """Load the last checkpoint into a fresh state, where there is one; warn about damaged files.

    Raises DotsZooError where the checkpoint is of another training, and where all are damaged.
    """
    saved = load_state(folder, identity)
    if not processes.agree(saved.path.name if saved else ""):
        processes.end(f"{folder}: expected the same folder in all processes")
    if saved is None:
        return
    processes.refuse_another_number(saved.path, saved.facts)
    for sentence in saved.damaged if processes.first else ():
        print(f"{sentence}; resuming from {saved.path}")
    for parameter in state.model.parameters():  # SGD creates its buffers in its first step
        if state.optimiser.defaults["momentum"]:
            state.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    best = {name: t for name, t in saved.tensors.items() if name.startswith("best.")}
    state.best = {name.removeprefix("best."): torch.empty_like(tensor) for name, tensor in best.items()}
    current = _tensors(state)
    if current.keys() - saved.tensors.keys() or any(
        current[k].shape != saved.tensors[k].shape for k in current
    ):
        raise DotsZooError(
            f"{saved.path}: expected a checkpoint of the same network; remove it to begin anew"
        )
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(saved.tensors[name])
    state.epoch, state.step = saved.facts["epoch"], saved.facts["step"]
    state.seconds, state.history = saved.facts["seconds"], saved.facts["history"]


def _tensors(state: State) -> dict[str, Tensor]:
    """Return every tensor of a state, not a copy, by its name in a checkpoint."""
    tensors = {"totals": state.totals}
    tensors |= {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    if state.ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.module.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for name, parameter in state.model.named_parameters():
        if (buffer := state.optimiser.state[parameter].get("momentum_buffer")) is not None:
            tensors[f"momentum.{name}"] = buffer
    return tensors


def epoch_line(row: Row, epochs: int) -> str:
    """Format the metrics of an epoch as one line."""
    percent = 100 * row["accuracy"]
    text = f"epoch {row['epoch'] + 1:.0f} of {epochs}: loss {row['loss']:.4f}, accuracy {percent:.2f} %"
    for images in IMAGES:
        if f"{images}_accuracy" in row:
            text += f", {images} {100 * row[f'{images}_accuracy']:.2f} %"
    return f"{text}, {row['seconds']:.0f} s"
