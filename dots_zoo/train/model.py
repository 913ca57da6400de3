"""Build the network of a training, and record what timm needs to build it again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..data.datasets import Data, DataOptions
from ..network import CellNet
from ..reference import Reference, create, require_cells, resolve, weights_sha256
from ..runtime.seeding import seeded
from .recipe import Recipe

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

    network: CellNet
    reference: Reference
    arguments: Mapping[str, Any]
    weights: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """Return the identity of the network by content: architecture, every edge of its cells, weights."""
        cells = self.network.genotype.cells
        return {
            "architecture": self.reference.architecture,
            **{name: value for name, value in self.arguments.items() if name != "genotype"},
            "genotype": {
                name: {
                    "concat": list(cell.concat),
                    **{f"edge {i}": [e.node, e.input, e.op] for i, e in enumerate(cell.edges)},
                }
                for name, cell in cells.items()
            },
            "weights": self.weights,
        }


def referred(model: str, options: ModelOptions, size: int | None) -> Reference:
    """Resolve `model` for images of `size` pixels a side (reference.py).

    Raises DotsZooError where it is no network of cells.
    """
    reference = resolve(
        model, macro=options.macro, channels=options.channels, layers=options.layers, size=size
    )
    require_cells(reference)
    return reference


def fitting(data: DataOptions, model: str, options: ModelOptions) -> DataOptions:
    """Return the data options with the image size of the network, where they give none.

    A training brings its size to every data set, another network only to images that have none of their own.
    """
    reference = referred(model, options, data.image_size)
    if data.image_size is not None or (reference.folder is None and data.data != "image_folder"):
        return data
    return replace(data, image_size=max(reference.input_size[1:]))


def build(model: str, options: ModelOptions, data: Data, recipe: Recipe) -> Built:
    """Build the network to train on `data`; its initial values depend on the recipe's seed alone.

    Raises DotsZooError where it is not one of ours, and where pretrained weights are requested and it has
    none.
    """
    reference = referred(model, options, data.size)
    classes = {"num_classes": data.classes, "in_chans": data.in_chans}
    weights = None
    with seeded(torch.device("cpu"), recipe.seed, "initial values"):
        network = create(reference, weights=False, aux_head=recipe.aux_weight > 0, **classes)
        if options.pretrained:
            body = create(reference, weights=True, **classes)
            network.load_state_dict({**network.state_dict(), **body.state_dict()})
            network.pretrained_cfg = body.pretrained_cfg
            weights = weights_sha256(body)[:16]
    if recipe.precision == "no" and not torch.cuda.is_available() and data.size >= QUICK:
        from ..kernels import replace_with_fast_layers  # for a CPU alone

        replace_with_fast_layers(network)
    return Built(network, reference, {**reference.arguments, **classes}, weights)


def as_trained(data: Data, network: Any) -> Data:
    """Return the data normalised by the mean and std of a pretrained network."""
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    if len(mean) != data.in_chans:
        return data
    same: Data = replace(data, mean=tuple(mean), std=tuple(std))  # type: ignore[type-var]
    return same
