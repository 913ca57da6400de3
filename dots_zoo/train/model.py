"""The network of a training, and what timm has to know to build it again."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models import is_model_in_modules

from ..data.datasets import Data
from ..genotype import load_genotype
from ..genotype.schema import write_json
from ..kernels.replace_layers import quicken
from ..network import CellNet
from ..runtime.errors import DotsZooError
from ..runtime.seeding import seeded
from .recipe import Recipe

QUICK = 32  # pixels: from here on the faster batch norm is faster; below, its calls cost more than they save
SMALL = 64  # pixels: up to here a genotype is built in the cifar macro-architecture


@dataclass(frozen=True)
class ModelOptions:
    """Which network.

    Args:
        macro: macro-architecture of a genotype; if not given nb201 for a cell of that space, else cifar for
            images of up to 64 pixels and mobile for larger ones.
        channels: width of the first cells; the model's own if not given.
        layers: number of cells; the model's own if not given.
        pretrained: begin with the model's own weights; the classifier is new where the classes are others.
    """

    macro: Literal["mobile", "cifar", "nb201"] | None = None
    channels: int | None = None
    layers: int | None = None
    pretrained: bool = False


@dataclass(frozen=True)
class Built:
    """A network and how timm names it: create_model(architecture, **arguments)."""

    network: CellNet
    architecture: str
    arguments: dict[str, Any]


def named(model: str, options: ModelOptions, size: int) -> tuple[str, dict[str, Any]]:
    """timm's name of a model and its arguments, from a timm name, `local-dir:FOLDER` or a genotype.

    Raises DotsZooError where it is none of them.
    """
    shape = {k: v for k, v in asdict(options).items() if k in ("channels", "layers") and v is not None}
    if model.startswith("local-dir:"):
        architecture, arguments = _saved(Path(model.removeprefix("local-dir:")))
        return architecture, {**arguments, **shape}
    if timm.is_model(model) and options.macro is None:
        if not is_model_in_modules(model, ["zoo"]):
            raise DotsZooError(
                f"{model}: expected a network of cells, got another of timm's; dots-zoo list prints the names"
            )
        return model, shape
    genotype = load_genotype(model)
    usual = "nb201" if genotype.space == "nasbench201" else "cifar" if size <= SMALL else "mobile"
    return f"cell_{options.macro or usual}", {"genotype": write_json(genotype), **shape}


def _saved(folder: Path) -> tuple[str, dict[str, Any]]:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return config["architecture"], config["model_args"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DotsZooError(
            f"{folder}: expected the folder of a training with its config.json, got {type(error).__name__} "
            f"({error})"
        ) from None


def build(model: str, options: ModelOptions, data: Data, recipe: Recipe) -> Built:
    """The network to train on `data`; its initial values depend on the recipe's seed alone.

    Raises DotsZooError where it is not one of ours, and where it has no weights but they are asked for.
    """
    architecture, arguments = named(model, options, data.size)
    arguments |= {"num_classes": data.classes, "in_chans": data.in_chans}
    with seeded(torch.device("cpu"), recipe.seed, "initial values"):
        network: Any = timm.create_model(architecture, aux_head=recipe.aux_weight > 0, **arguments)
        if options.pretrained:
            source = model if model.startswith("local-dir:") else architecture
            body = timm.create_model(source, pretrained=True, **arguments)
            network.load_state_dict({**network.state_dict(), **body.state_dict()})
            network.pretrained_cfg = body.pretrained_cfg
    if recipe.precision == "no" and not torch.cuda.is_available() and data.size >= QUICK:
        quicken(network)
    return Built(network, architecture, arguments)


def as_trained(data: Data, network: Any) -> Data:
    """The data normalised by what a pretrained network was trained with."""
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    if len(mean) != data.in_chans:
        return data
    same: Data = replace(data, mean=tuple(mean), std=tuple(std))  # type: ignore[type-var]
    return same
