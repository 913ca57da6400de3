"""Build the network of a training, and record what timm needs to build it again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import DropPath
from torch import nn

from ..data.datasets import Data, DataOptions
from ..data.load import recognised
from ..network import CellNet
from ..reference import Reference, create, resolve, weights_sha256
from ..runtime.errors import DotsZooError
from ..runtime.seeding import seeded
from .recipe import Recipe, drop_path_rate

QUICK = 32  # pixels: from here on the faster batch norm is faster; below, its calls cost more than they save


@dataclass(frozen=True)
class ModelOptions:
    """Options that choose the network.

    Args:
        macro: macro-architecture of a genotype; if not given that of its space for images of the size.
        channels: width of the first cells; the model's own if not given.
        layers: number of cells; the model's own if not given.
        pretrained: begin with the model's own weights; the classifier is new where the classes are others.
    """

    macro: str | None = None
    channels: int | None = None
    layers: int | None = None
    pretrained: bool = False


@dataclass(frozen=True)
class Built:
    """A network and how timm builds it: create_model(reference.architecture, **arguments).

    weights: beginning of the SHA-256 of the pretrained weights, None where the initial values are drawn.
    """

    network: nn.Module
    reference: Reference
    arguments: Mapping[str, Any]
    weights: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """Return the identity of the network by content: architecture, every edge of its cells, weights."""
        arguments = {name: value for name, value in self.arguments.items() if name != "genotype"}
        return {
            "architecture": self.reference.architecture,
            **arguments,
            **_edges(self.network),
            "weights": self.weights,
        }


def _edges(network: nn.Module) -> dict[str, Any]:
    """Return every edge of a network of cells, nothing for another."""
    if not isinstance(network, CellNet):
        return {}
    cells = {
        name: {
            "concat": list(cell.concat),
            **{f"edge {i}": [e.node, e.input, e.op] for i, e in enumerate(cell.edges)},
        }
        for name, cell in network.genotype.cells.items()
    }
    return {"genotype": cells}


def referred(model: str, options: ModelOptions, size: int | None) -> Reference:
    """Resolve `model` for images of `size` pixels a side (reference.py)."""
    return resolve(model, macro=options.macro, channels=options.channels, layers=options.layers, size=size)


def fitting(data: DataOptions, model: str, options: ModelOptions) -> DataOptions:
    """Return the data options with the image size of the network, where they give none.

    A training brings its size to every data set, another network only to images that have none of their own.
    """
    data = recognised(data)
    reference = referred(model, options, data.image_size)
    if data.image_size is not None or (reference.folder is None and data.data != "image_folder"):
        return data
    return replace(data, image_size=max(reference.input_size[1:]))


def build(model: str, options: ModelOptions, data: Data, recipe: Recipe) -> Built:
    """Build the network to train on `data`; its initial values depend on the recipe's seed alone.

    Raises DotsZooError where timm cannot build it, and where pretrained weights are requested and it has
    none.
    """
    reference = referred(model, options, data.size)
    arguments: dict[str, Any] = {"num_classes": data.classes, "in_chans": data.in_chans}
    if reference.fixed_size and data.size != max(reference.input_size[1:]):
        arguments["img_size"] = data.size
    weights = None
    with seeded(torch.device("cpu"), recipe.seed, "initial values"):
        network = _fresh(reference, recipe, arguments)
        if options.pretrained:
            body = create(reference, weights=True, **arguments)
            network.load_state_dict({**network.state_dict(), **body.state_dict()})
            network.pretrained_cfg = body.pretrained_cfg
            weights = weights_sha256(body)[:16]
    if recipe.precision == "no" and not torch.cuda.is_available() and data.size >= QUICK:
        from ..kernels import replace_with_fast_layers  # for a CPU alone

        replace_with_fast_layers(network)
    return Built(network, reference, {**reference.arguments, **arguments}, weights)


def _fresh(reference: Reference, recipe: Recipe, arguments: Mapping[str, Any]) -> Any:
    """Build a network with what the recipe adds for training, as far as the network has it.

    A network of cells may have an auxiliary head, another has the drop-path rates of the last epoch.
    """
    wanted: dict[str, Any] = {}
    if reference.of_cells and recipe.aux_weight:
        wanted["aux_head"] = True
    if not reference.of_cells and recipe.drop_path_rate:
        wanted["drop_path_rate"] = recipe.drop_path_rate
    try:
        return create(reference, weights=False, **arguments, **wanted)
    except DotsZooError:
        if not wanted:
            raise
        return create(reference, weights=False, **arguments)


def left_out(network: nn.Module, recipe: Recipe) -> list[str]:
    """Return a sentence for each part of a recipe that a network has no place for."""
    sentences = []
    if recipe.aux_weight and getattr(network, "aux_head", None) is None:
        sentences.append(f"no auxiliary head, so aux_weight {recipe.aux_weight:g} is left out")
    has_paths = isinstance(network, CellNet) or any(isinstance(m, DropPath) for m in network.modules())
    if recipe.drop_path_rate and not has_paths:
        sentences.append(f"no drop path, so drop_path_rate {recipe.drop_path_rate:g} is left out")
    return sentences


def as_trained(data: Data, network: Any) -> Data:
    """Return the data normalised by the mean and std of a pretrained network."""
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    if len(mean) != data.in_chans:
        return data
    same: Data = replace(data, mean=tuple(mean), std=tuple(std))  # type: ignore[type-var]
    return same


def drop_path_schedule(network: nn.Module, recipe: Recipe) -> Callable[[int], None]:
    """Return a function that sets the drop-path rate of an epoch, which rises to the recipe's in the last.

    A network of cells has one rate. Another was built with the rates of the last epoch, one a block.
    """
    if isinstance(network, CellNet):
        return lambda epoch: network.set_drop_path(drop_path_rate(recipe, epoch))
    paths = [(module, module.drop_prob) for module in network.modules() if isinstance(module, DropPath)]

    def set_rates(epoch: int) -> None:
        share = drop_path_rate(recipe, epoch) / recipe.drop_path_rate if recipe.drop_path_rate else 0.0
        for path, final in paths:
            path.drop_prob = share * final

    return set_rates
