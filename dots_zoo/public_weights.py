"""Load checkpoints of the public DARTS-family code under our parameter names.

The public evaluation networks share one naming: `stem0`, `stem1` (ImageNet) or `stem` (CIFAR),
`cells.3._ops.2.op.1`, `cells.0.preprocess0.conv_1`, `auxiliary_head.features.2`, `classifier`. `_ops` is
numbered by the published edge order, `op` by the position in the public operation, which is the position in
ours.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # what torch.load(weights_only=True) raises; nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .genotype import CellGenotype
from .network import CellNet
from .runtime.errors import DotsZooError

# Public name of a module -> ours; the last matching group of a public key is the parameter's name.
_FIXED = {
    "stem0.0": "stem.0.0",
    "stem0.1": "stem.0.1",
    "stem0.3": "stem.1.0",
    "stem0.4": "stem.1.1",
    "stem1.1": "stem.2.1",
    "stem1.2": "stem.2.2",
    "stem.0": "stem.0.0",
    "stem.1": "stem.0.1",
    "auxiliary_head.features.2": "aux_head.conv1",
    "auxiliary_head.features.3": "aux_head.bn1",
    "auxiliary_head.features.5": "aux_head.conv2",
    "auxiliary_head.features.6": "aux_head.bn2",
    "auxiliary_head.classifier": "aux_head.fc",
    "classifier": "head.fc",
}
_CELL = re.compile(r"cells\.(\d+)\.(preprocess[01]|_ops\.(\d+))\.?(.*)")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")


def edge_positions(cell: CellGenotype) -> list[tuple[int, int]]:
    """Return (node, edge) indices of every edge in published order.

    The node's index counts the nodes that have edges, the edge's index counts the edges into that node.
    """
    nodes = sorted({edge.node for edge in cell.edges})
    return [
        (nodes.index(edge.node), sum(other.node == edge.node for other in cell.edges[:k]))
        for k, edge in enumerate(cell.edges)
    ]


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: CellNet) -> dict[str, Tensor]:
    """Rename the parameters of a public checkpoint to ours; ours pass unchanged (timm's `filter_fn`).

    The auxiliary head's parameters are left out where the model was built without one: only training uses it.
    """
    state_dict = _unwrap(state_dict)
    if any(key.startswith("classifier.") or "._ops." in key for key in state_dict):
        state_dict = {_rename(key, model): value for key, value in state_dict.items()}
    return {
        key: value
        for key, value in state_dict.items()
        if model.aux_head is not None or not key.startswith("aux_head.")
    }


def load_public_checkpoint(model: CellNet, source: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Load weights of the public DARTS-family code, or our own, strictly: nothing missing, nothing left over.

    Args:
        model: the network, which is left unchanged where an error is raised.
        source: a file (safetensors, or a torch file, read with weights_only=True) or a state dict.

    Raises DotsZooError for a file that cannot be read and for weights that do not fit.
    """
    if not isinstance(model, CellNet):
        raise DotsZooError(
            f"load_public_checkpoint: expected a classification model of dots_zoo, got {type(model).__name__}"
        )
    where = "state dict" if isinstance(source, Mapping) else os.fspath(source)
    state_dict = checkpoint_filter_fn(source if isinstance(source, Mapping) else _read(Path(source)), model)
    _check_fit(state_dict, model, where)
    model.load_state_dict(state_dict)


def body_weights(model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the weights in a file for a timm model without classifier (num_classes=0), after a strict check.

    The file may hold a classifier of any number of classes, which is left out. Raises DotsZooError as
    load_public_checkpoint does.
    """
    loaded = _read(path)
    state_dict = checkpoint_filter_fn(loaded, model) if isinstance(model, CellNet) else _unwrap(loaded)
    names = model.pretrained_cfg["classifier"]  # type: ignore[index]
    classifiers = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names or ()))
    body = {key: value for key, value in state_dict.items() if not key.startswith(classifiers)}
    _check_fit(body, model, os.fspath(path))
    return body


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    return {key.removeprefix("module."): value for key, value in state_dict.items()}


def _rename(key: str, model: CellNet) -> str:
    module, _, parameter = key.rpartition(".")
    if match := _CELL.fullmatch(module):
        cell, place, op, rest = match.groups()
        # ReLUConvBN, SepConv and DilConv keep their layers in `op`, FactorizedReduce names its convolutions.
        rest = rest.removeprefix("op.").replace("conv_1", "conv1").replace("conv_2", "conv2")
        place = place if op is None else _place(model, int(cell), int(op), key)
        return f"cells.{cell}.{place}.{rest}.{parameter}"
    return f"{_FIXED.get(module, module)}.{parameter}"


def _place(model: CellNet, cell: int, op: int, key: str) -> str:
    if cell >= len(model.cells):
        raise DotsZooError(
            f"checkpoint: {key} is of cell {cell}, but the model has {len(model.cells)} cells: pass layers"
        )
    positions = edge_positions(model.cells[cell].genotype)  # type: ignore[arg-type]
    if op >= len(positions):
        raise DotsZooError(
            f"checkpoint: {key} is of edge {op}, but this cell has {len(positions)} edges: pass its genotype"
        )
    node, index = positions[op]
    return f"nodes.{node}.ops.{index}"


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DotsZooError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DotsZooError(f"{path}: not a file of weights that can be read safely ({reason})") from error
    if not isinstance(loaded, Mapping):
        raise DotsZooError(f"{path}: expected a state dict, got {type(loaded).__name__}")
    return loaded


def _check_fit(state_dict: Mapping[str, Any], model: nn.Module, where: str) -> None:
    own = model.state_dict()
    # Checkpoints older than torch 0.4.1 have no step counter; nn.BatchNorm2d fills it in.
    missing = [key for key in own if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in own]
    shapes = [
        f"{key} is {tuple(state_dict[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state_dict and state_dict[key].shape != own[key].shape
    ]
    problems = [
        f"{len(names)} {fault} (first: {names[0]})"
        for fault, names in (("missing", missing), ("left over", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        name = model.genotype.name if isinstance(model, CellNet) else type(model).__name__
        raise DotsZooError(
            f"{where}: does not fit {name or 'this model'}: {', '.join(problems)}; "
            "check the genotype, macro, channels, layers, num_classes and aux_head of the model"
        )
