"""Build the network of an export, with the weights of its training, of a file, or its own."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from timm.models import load_checkpoint
from torch import nn

import dots_zoo
from dots_zoo.network import CellNet
from dots_zoo.reference import Reference, create
from dots_zoo.runtime.errors import DotsZooError


@dataclass(frozen=True)
class Weights:
    """The source of weights beside the folder of a training: a file, or timm's for the name."""

    checkpoint: Path | None = None
    pretrained: bool = False


OWN = Weights()


def build_model(
    reference: Reference,
    features: bool,
    weights: Weights = OWN,
    genotype: str | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Return a network, or its features_only form, with the weights of its training, of a file, or its own.

    Raises DotsZooError for what does not fit the network, and for weights that do not fit.
    """
    _refuse_misfits(reference, weights, genotype, num_classes)
    options = {"genotype": genotype, "num_classes": num_classes}
    given = {name: value for name, value in options.items() if value is not None}
    trained, checkpoint = reference.folder is not None, weights.checkpoint
    if checkpoint is None and not (trained and features):
        loaded = trained or weights.pretrained
        model: nn.Module = create(reference, weights=loaded, features_only=features, **given)
        return model
    model = create(reference, weights=trained, **given)
    if checkpoint is not None:
        _load(model, checkpoint)
    if not features:
        return model
    # timm does not load strictly into a features_only model: it gets what has been loaded strictly.
    overlay = {**_described(model), "state_dict": model.state_dict()}
    network: nn.Module = create(
        replace(reference, folder=None, cell=False),
        weights=True,
        pretrained_cfg_overlay=overlay,
        features_only=True,
        **given,
    )
    return network


def _refuse_misfits(
    reference: Reference, weights: Weights, genotype: str | None, num_classes: int | None
) -> None:
    name, trained = reference.name, reference.folder is not None
    if weights.checkpoint is not None and weights.pretrained:
        raise DotsZooError(f"{name}: --checkpoint and --pretrained both give weights: choose one")
    if weights.checkpoint is not None and trained:
        raise DotsZooError(f"{name}: --checkpoint and the folder both give weights: leave --checkpoint out")
    if genotype is not None and (reference.cell or trained):
        raise DotsZooError(f"{name}: it has its cell, and --genotype gives another: leave --genotype out")
    classes = reference.arguments.get("num_classes", num_classes)
    if trained and num_classes not in (None, classes):
        raise DotsZooError(
            f"{name}: it was trained to name {classes} classes, and --num-classes asks for {num_classes}: "
            "leave it out"
        )


def _described(model: nn.Module) -> dict[str, Any]:
    """Return what timm's cfg says of the images of a network."""
    config: Any = model.pretrained_cfg
    return {key: config[key] for key in ("input_size", "mean", "std", "num_classes") if config.get(key)}


def _load(model: nn.Module, path: Path) -> None:
    if isinstance(model, CellNet):
        dots_zoo.load_public_checkpoint(model, path)
        return
    if not path.is_file():
        raise DotsZooError(f"{path}: no such checkpoint file")
    try:
        load_checkpoint(model, str(path), strict=True)
    except (RuntimeError, SafetensorError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())  # torch lists every key
        raise DotsZooError(f"{path}: cannot be loaded into {type(model).__name__}: {reason:.300}") from error
