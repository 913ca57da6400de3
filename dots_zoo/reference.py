"""Resolve the name of a network: its timm architecture and arguments, its weights, its input size.

A name is, tried in this order,

- `local-dir:FOLDER`, the folder of a training in timm's spelling;
- a timm name, ours or another;
- the folder of a training, or of a search, whose genotype is built;
- a genotype: the name of a bundled cell, a file or a text, built in a macro-architecture.

Every command that takes a network resolves its name here.
"""

import difflib
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import is_model_in_modules, split_model_name_tag
from torch import nn

from .genotype import Genotype, bundled_names, is_genotype, load_genotype
from .genotype.schema import read_json, write_json
from .macro import MACROS, usual_macro
from .runtime.errors import DotsZooError
from .runtime.run_folder import run_of
from .runtime.table import PLUGIN_HINT, look_up

LOCAL = "local-dir:"
CONFIG, WEIGHTS, GENOTYPE = "config.json", "model.safetensors", "genotype.json"
RUNS = {"train": "training", "search": "search"}
MAX_NAME = 200  # characters of a name that an error repeats


@dataclass(frozen=True)
class Reference:
    """A network that a name stands for: timm.create_model(architecture, **arguments).

    Args:
        name: the name in messages.
        input_size: (C, H, W) of the images that it expects.
        folder: folder of the training that wrote its weights.
        cell: True for a genotype, which has no weights.
        fixed_size: True where the images have to be of its size, which create_model then takes as `img_size`.
        misfit: arguments by which it differs from the network whose weights the folder holds.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any]
    input_size: tuple[int, int, int]
    folder: Path | None = None
    cell: bool = False
    fixed_size: bool = False
    misfit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_cells(self) -> bool:
        """Return True for a network of ours, False for another of timm's."""
        return is_model_in_modules(self.architecture, ["zoo"])


def resolve(
    name: str | os.PathLike[str],
    *,
    macro: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    size: int | None = None,
) -> Reference:
    """Return the network that `name` stands for, with the width and depth given.

    Args:
        macro: macro-architecture of a genotype; None: the default of its space for images of `size`.
        size: side of the images in pixels; None: large.

    Raises DotsZooError where the name is no network, with the nearest name that is one, and where macro,
    channels or layers do not fit it.
    """
    name = os.fspath(name)
    shape = {k: v for k, v in {"channels": channels, "layers": layers}.items() if v is not None}
    if name.startswith(LOCAL):
        return _training(name, Path(name.removeprefix(LOCAL)), macro, shape)
    if _is_timm_name(name) and (macro is None or name not in bundled_names()):
        return _registered(name, macro, shape)
    if os.path.isdir(name):
        if (Path(name) / CONFIG).is_file() or not (Path(name) / GENOTYPE).is_file():
            return _training(name, Path(name), macro, shape)
        name = str(Path(name) / GENOTYPE)
    if is_genotype(name):
        return _cell(name, macro, shape, size)
    raise _unknown(name)


def _is_timm_name(name: str) -> bool:
    """Return True for an architecture, with or without a tag; `darts_v1.json` may also be a file."""
    return timm.is_model(name) and not ("." in name and os.path.isfile(name))


def _registered(name: str, macro: str | None, shape: Mapping[str, Any]) -> Reference:
    try:
        cfg: Any = timm.get_pretrained_cfg(name)
        fixed = bool(getattr(cfg, "fixed_input_size", False))
        reference = Reference(name, name, dict(shape), _input_size(cfg), fixed_size=fixed)
    except RuntimeError as error:  # timm has no such tag
        raise DotsZooError(f"{name}: {error} Leave out what is after the dot") from None
    if macro is not None:
        raise DotsZooError(
            f"{name}: --macro is for a genotype, and this network has its macro-architecture: leave it out"
        )
    if shape and not reference.of_cells:
        raise DotsZooError(f"{name}: --{min(shape)} is for networks of cells, got another of timm's")
    return reference


def _training(name: str, folder: Path, macro: str | None, shape: Mapping[str, Any]) -> Reference:
    if macro is not None:
        raise DotsZooError(f"{name}: --macro is for a genotype, and this is a training: leave it out")
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
        architecture, _ = split_model_name_tag(config["architecture"])  # the tag names an import (zoo.py)
        saved = {key: config[key] for key in ("num_classes",) if key in config}
        saved.update(config.get("model_args") or {})
        cfg = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
        own = config.get("pretrained_cfg") or {}
        size = tuple(int(n) for n in own.get("input_size") or ()) or _input_size(cfg)
        channels, height, width = size
    except (FileNotFoundError, NotADirectoryError):
        raise DotsZooError(f"{folder}: {_no_training(folder)}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DotsZooError(
            f"{path}: expected what a training writes, got {type(error).__name__} ({error})"
        ) from None
    if not timm.is_model(architecture):
        raise DotsZooError(
            f"{path}: expected an architecture that timm knows, got "
            f"{architecture!r}{_nearest(architecture)}; {PLUGIN_HINT}"
        )
    cell = saved.get("genotype")
    if isinstance(cell, str) and cell.startswith("{"):
        read_json(cell, f"{path}, genotype")  # says which plug-in it needs before anything is built
    return Reference(
        name=name,
        architecture=architecture,
        arguments={**saved, **shape},
        input_size=(channels, height, width),
        folder=folder,
        fixed_size=bool(getattr(cfg, "fixed_input_size", False)),
        misfit={k: v for k, v in shape.items() if v != saved.get(k, v)},
    )


def _no_training(folder: Path) -> str:
    """Say what is in a folder that has no config.json."""
    expected = f"expected the folder of a training with its {CONFIG}, got"
    if not folder.is_dir():
        return f"{expected} a file" if folder.exists() else f"{expected} nothing there{_nearest(str(folder))}"
    if (folder / "config.yaml").is_file() and not (folder / GENOTYPE).is_file():
        command = run_of(folder) or "train"
        return f"{expected} a {RUNS[command]} that has not ended: dots-zoo {command} ... --resume ends it"
    names = sorted(path.name for path in folder.iterdir())
    return f"{expected} {', '.join(names[:5]) or 'an empty folder'}{' and more' if len(names) > 5 else ''}"


def _cell(name: str, macro: str | None, shape: Mapping[str, Any], size: int | None) -> Reference:
    genotype = load_genotype(name)
    if macro is not None:
        look_up(MACROS, macro, f"{name}: --macro", PLUGIN_HINT)
    architecture = f"cell_{macro or usual_macro(genotype.space, math.inf if size is None else size)}"
    return Reference(
        name=name if len(name) <= MAX_NAME and name.isprintable() else genotype.name,
        architecture=architecture,
        arguments={"genotype": write_json(genotype), **shape},
        input_size=_input_size(timm.get_pretrained_cfg(architecture)),
        cell=True,
    )


def _input_size(cfg: Any) -> tuple[int, int, int]:
    channels, height, width = getattr(cfg, "input_size", None) or (3, 224, 224)
    return channels, height, width


def _unknown(name: str) -> DotsZooError:
    cut = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    return DotsZooError(
        f"unknown model {cut!r}{_nearest(name)}: expected a timm name, a genotype (bundled name, file or "
        "text) or the folder of a training; dots-zoo list and dots-zoo list --cells print our names"
    )


def _nearest(name: str) -> str:
    """Return the spellings nearest to a name among ours, timm's and the files beside it."""
    path = Path(name[:MAX_NAME])
    try:
        beside = [str(path.parent / entry.name) for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        beside = []
    ours: Sequence[str] = [*timm.list_models(module="zoo"), *bundled_names()]
    for names in ([*ours, *beside], timm.list_models()):
        if near := difflib.get_close_matches(str(path), dict.fromkeys(names)):
            return f" (nearest: {', '.join(near)})"
    return ""


def genotype_of(name: str | os.PathLike[str]) -> Genotype:
    """Return the cell of the network that `name` stands for: what `resolve` takes.

    Raises DotsZooError where it is no network, or one that is not of cells.
    """
    name = os.fspath(name)
    if is_genotype(name):
        return load_genotype(name)
    reference = resolve(name)
    if not reference.of_cells:
        raise DotsZooError(
            f"{reference.name}: expected a network of cells, got another of timm's; dots-zoo list and "
            "dots-zoo list --cells print the names"
        )
    if "genotype" in reference.arguments:
        return load_genotype(reference.arguments["genotype"])
    genotype: Genotype = create(reference, weights=False, device="meta").genotype
    return genotype


def create(reference: Reference, *, weights: bool, **arguments: Any) -> Any:
    """Build the network with timm; `arguments` override the reference's.

    weights: load the weights of the training, or the pretrained ones of the name; the classifier is new where
    the arguments ask for other classes. Raises DotsZooError where the network cannot be built, has no
    weights, or they do not fit.
    """
    name, folder = reference.name, reference.folder
    source = reference.architecture
    if weights:
        if reference.cell:
            raise DotsZooError(f"{name}: a genotype has no weights: train it, and give the training's folder")
        if folder is not None:
            _require_weights(reference, folder)
            source = f"{LOCAL}{folder}"
        elif reference.of_cells and "pretrained_cfg_overlay" not in arguments and not _has_weights(source):
            raise DotsZooError(
                f"{name} has no pretrained weights: train it and give the training's folder, or leave out "
                "--pretrained; dots-zoo list says which names have some"
            )
    try:
        return timm.create_model(source, pretrained=weights, **{**reference.arguments, **arguments})
    except (RuntimeError, TypeError, ValueError, AssertionError, OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())  # torch lists every key
        if weights and folder is None and isinstance(error, OSError):
            raise DotsZooError(
                f"{name}: its pretrained weights are not on this machine and cannot be fetched: connect "
                f"it, or begin without them ({reason:.200})"
            ) from error
        raise DotsZooError(f"{name}: timm cannot build this model: {reason:.300}") from error


def _has_weights(architecture: str) -> bool:
    cfg: Any = timm.get_pretrained_cfg(architecture)
    return bool(cfg.has_weights or cfg.state_dict)


def _require_weights(reference: Reference, folder: Path) -> None:
    if reference.misfit:
        other = " and ".join(f"--{k} {v}" for k, v in reference.misfit.items())
        raise DotsZooError(
            f"{reference.name}: {other} is not the network whose weights the folder holds: leave it out"
        )
    if not (folder / WEIGHTS).is_file():
        raise DotsZooError(f"{folder}: expected the weights of a training, {WEIGHTS}, got none")


def weights_sha256(model: nn.Module) -> str:
    """Hash every entry of the state dict: name, type, shape and the bytes of its values."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
