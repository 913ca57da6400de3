"""Where a training stands, and how it lies in one file.

The file is safetensors; its header holds what is not a tensor, as JSON. Draws depend on the seed, the epoch
and the step alone (randomness.py), so no random state is kept.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from .errors import DotsZooError
from .files import write_file
from .options import dotted
from .recipe import Recipe

Row = dict[str, float]  # of metrics.jsonl: the figures of an epoch
SCHEMA = 1


@dataclass
class State:
    """A network in training: its next step is `step` of `epoch`."""

    model: nn.Module
    optimiser: torch.optim.SGD
    ema: ModelEmaV3 | None
    totals: Tensor  # (3,): loss, hits, images so far in this epoch
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0  # of training, in this epoch, those of runs before included
    history: list[Row] = field(default_factory=list)

    @property
    def kept(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.model if self.ema is None else self.ema.module


def fresh_state(model: nn.Module, recipe: Recipe) -> State:
    """Before the first step."""
    optimiser = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    ema = ModelEmaV3(model, recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    return State(model, optimiser, ema, torch.zeros(3, device=next(model.parameters()).device))


def save_state(state: State, path: Path, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. identity: what a training has to share to go on from it."""
    facts = {
        "schema": SCHEMA,
        "identity": identity,
        "epoch": state.epoch,
        "step": state.step,
        "seconds": state.seconds,
        "history": state.history,
    }
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(state).items()}
    write_file(path, save(tensors, {"state": json.dumps(facts)}))


def load_state(state: State, path: Path, identity: Mapping[str, Any]) -> None:
    """Set a fresh state to a checkpoint's. Raises DotsZooError where it is of another training or damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DotsZooError(
            f"{path}: not a checkpoint of a training ({error}); remove it to begin anew"
        ) from None
    _refuse_another(path, facts["identity"], json.loads(json.dumps(identity)))
    for parameter in state.model.parameters():  # SGD makes its buffers in its first step
        if state.optimiser.defaults["momentum"]:
            state.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    own = _tensors(state)
    if own.keys() - tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        raise DotsZooError(f"{path}: expected a checkpoint of the same network; remove it to begin anew")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    state.epoch, state.step = facts["epoch"], facts["step"]
    state.seconds, state.history = facts["seconds"], facts["history"]


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of a state, those themselves, by their names in a checkpoint."""
    found = {"totals": state.totals}
    found |= {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    if state.ema is not None:
        found |= {f"ema.{name}": tensor for name, tensor in state.ema.module.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        if (buffer := state.optimiser.state[parameter].get("momentum_buffer")) is not None:
            found[f"momentum.{name}"] = buffer
    return found


def _refuse_another(path: Path, saved: Any, identity: Any) -> None:
    if saved == identity:
        return
    there, here = dotted(saved), dotted(identity)
    name = next(name for name in sorted({*there, *here}) if there.get(name) != here.get(name))
    raise DotsZooError(
        f"{path}: made with {name} {there.get(name)!r}, expected {here.get(name)!r}; pass the same options, "
        "or another folder"
    )
