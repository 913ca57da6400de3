"""Register the timm names: after `import dots_zoo`, `timm.create_model('dots_imagenet')` builds one.

The cells are those of `dots_zoo/genotype/published/`; a `_mobile` name is a CIFAR cell in the ImageNet
macro-architecture. `notes` of a name's cfg holds the accuracy that the paper named there reports; it was not
measured here, and a network built under the name does not carry it. Only the weights of `dots_cifar10_tiny`
come with the package (docs/training.md).

`dots_imagenet` has 48 channels, not the 46 of the DOTS paper: at 46 the published cell has 4.95 M parameters
and 541 M MACs, at 48 it has 5,348,032 parameters and 587,347,392 MACs of convolutions and linear layers, and
the paper's 5.3 M and 596 M are reached by counting one more MAC per batch-norm output element (596.2 M).
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import nn

from .genotype import Genotype, load_genotype
from .macro import CIFAR, MACROS, MOBILE, NB201, MacroArchitecture
from .network import CellNet
from .public_weights import checkpoint_filter_fn
from .runtime.errors import DotsZooError
from .runtime.table import PLUGIN_HINT, add_record, look_up

__all__: list[str] = []  # timm appends the names

default_cfgs: dict[str, Any] = {}

WEIGHTS = Path(__file__).parent / "weights"

# name, bundled cell, classes, the paper's accuracy on CIFAR, and that of the cell in the ImageNet macro.
CIFAR_MODELS: list[tuple[str, str, int, str, str]] = [
    ("dots_cifar10", "dots_cifar10", 10, "97.63 CIFAR-10 (DOTS, best of 4)", "75.7 ImageNet (DOTS)"),
    ("dots_cifar100", "dots_cifar100", 100, "83.72 CIFAR-100 (DOTS, best of 4)", ""),
    ("darts_v1", "darts_v1", 10, "97.00 CIFAR-10 (DARTS)", ""),
    ("darts_v2", "darts_v2", 10, "97.24 CIFAR-10 (DARTS)", "73.3 ImageNet (DARTS)"),
    ("pc_darts_cifar10", "pc_darts_cifar10", 10, "97.43 CIFAR-10 (PC-DARTS)", "74.9 ImageNet (PC-DARTS)"),
    ("p_darts_cifar10", "p_darts_cifar10", 10, "97.50 CIFAR-10 (P-DARTS)", "75.6 ImageNet (P-DARTS)"),
    ("sgas_cifar10", "sgas_cifar10", 10, "", ""),
    ("dropnas_cifar10", "dropnas_cifar10", 10, "97.74 CIFAR-10 (DropNAS, best)", "75.5 ImageNet (DropNAS)"),
    ("darts_minus_cifar10", "darts_minus_cifar10_s0_0", 10, "97.50 CIFAR-10 (DARTS-, best)", ""),
    ("darts_minus_cifar100", "darts_minus_cifar100_s0_0", 100, "", ""),
    ("darts_pt_cifar10", "darts_pt_cifar10_s0_0", 10, "", ""),
]
IMAGENET_MODELS: list[tuple[str, str]] = [
    ("dots_imagenet", "76.0 ImageNet (DOTS)"),
    ("pc_darts_imagenet", "75.8 ImageNet (PC-DARTS)"),
    ("sgas_imagenet", "75.87 ImageNet (SGAS)"),
]
# Tag of the architectures in a saved config: whoever builds one without dots_zoo reads it in timm's error.
TAG = "import_dots_zoo"
PAPER = "paper: "
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"


def _create(name: str, saved_as: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build a network with timm; `saved_as` is the architecture that timm writes into its config."""
    if kwargs.get("genotype") is None:
        raise DotsZooError(
            f"{name} builds any cell: pass genotype='name of a bundled cell' or a path to a genotype file"
        )
    chosen, overlay = kwargs.pop("pretrained_cfg", None), kwargs.pop("pretrained_cfg_overlay", None)
    cfg: Any = resolve_pretrained_cfg(name, None if chosen == TAG else chosen, overlay)
    if pretrained and not (cfg.has_weights or cfg.state_dict):
        raise DotsZooError(
            f"{name} has no pretrained weights: load your own with "
            "pretrained_cfg_overlay=dict(file='weights.safetensors'), a public DARTS-family checkpoint with "
            "dots_zoo.load_public_checkpoint(model, path), or train it"
        )
    notes = [note for note in cfg.notes or () if not note.startswith(PAPER)]
    own_cfg = {**cfg.to_dict(), "architecture": f"{saved_as}.{TAG}", "notes": notes or None}
    model: nn.Module = build_model_with_cfg(
        CellNet,
        name,
        pretrained,
        pretrained_cfg=own_cfg,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={
            "feature_cls": "getter",
            "out_indices": tuple(range(len(MACROS[kwargs["macro"]].strides))),
        },
        **kwargs,
    )
    return model


def _add(
    name: str,
    genotype: Genotype | str | None,
    macro: str,
    cfg: Mapping[str, Any],
    *,
    shipped: bool = True,
    **kwargs: Any,
) -> None:
    """Register one name with timm: its cfg first, as timm requires, then its entry point.

    shipped: importing dots_zoo registers the name. Another is unknown to the next process, so that timm saves
    its networks under the name that builds any cell, with the cell as an argument.
    """
    record = MACROS[macro]
    base = {"first_conv": "stem.0.0", "classifier": "head.fc", "license": "apache-2.0", **record.cfg}
    default_cfgs.update(generate_default_cfgs({name: {**base, **cfg}}))
    size = {"channels": record.channels, "layers": record.layers}
    defaults = {"genotype": genotype, "macro": macro, **size, **kwargs}

    def entry_point(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if shipped:
            return _create(name, name, pretrained, **{**defaults, **kwargs})
        model = _create(name, f"cell_{macro}", pretrained, **{**defaults, **kwargs})
        if isinstance(model, CellNet):  # not timm's features_only wrapper
            model._model_args = {key: value for key, value in defaults.items() if key != "macro"}
        return model

    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__doc__ = (
        f"The cell {genotype if isinstance(genotype, str) else name} in the {macro} macro-architecture."
    )
    register_model(entry_point)


def register(
    name: str,
    genotype: Genotype | str,
    macro: str = "mobile",
    *,
    cfg: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **kwargs: Any,
) -> None:
    """Register your own cell with timm: register('mine', 'runs/x/genotype.json'); timm.create_model('mine').

    Args:
        genotype: a Genotype, a bundled name, a file or a text, as for load_genotype.
        macro: 'mobile', 'cifar', 'nb201' or one that was added.
        cfg: entries of timm's pretrained cfg, such as file='weights.safetensors' (pretrained=True then
            works),
            num_classes, input_size, mean, std.
        overwrite: replace a model of that name.
        kwargs: defaults for CellNet, such as channels and layers.

    Raises DotsZooError for a name that is taken or that timm cannot hold, GenotypeError for a cell that
    cannot be read.
    """
    look_up(MACROS, macro, f"register {name!r}, macro", PLUGIN_HINT)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DotsZooError(
            f"register: expected a name of lower-case letters, digits and underscores, got {name!r}"
        )
    if timm.is_model(name) and not overwrite:
        raise DotsZooError(
            f"register: timm already has a model {name!r}; choose another name or pass overwrite=True"
        )
    loaded = load_genotype(genotype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's warning that the name is overwritten: it was asked for
        _add(name, loaded, macro, cfg or {}, shipped=False, **kwargs)


def _note(paper: str) -> dict[str, Any]:
    return {"notes": (f"{PAPER}{paper}",)} if paper else {}


def register_macro(macro: MacroArchitecture) -> None:
    """Add a macro-architecture for `register(..., macro=NAME)`, `--macro NAME` and timm's `cell_NAME`.

    timm's name builds any cell in it. Raises DotsZooError where the name is malformed or taken.
    """
    add_record(MACROS, macro, "macro-architecture")
    _add(f"cell_{macro.name}", None, macro.name, {})


def _register_all() -> None:
    for macro in (MOBILE, CIFAR, NB201):
        register_macro(macro)
    for name, genotype, num_classes, cifar_paper, mobile_paper in CIFAR_MODELS:
        _add(name, genotype, "cifar", {"num_classes": num_classes, **_note(cifar_paper)})
        _add(f"{name}_mobile", genotype, "mobile", _note(mobile_paper))
    for name, paper in IMAGENET_MODELS:
        _add(name, name, "mobile", _note(paper))
    tiny = "dots_cifar10_tiny"
    cfg = {"file": str(WEIGHTS / f"{tiny}.safetensors"), "label_names": CIFAR10.split()}
    _add(tiny, "dots_cifar10", "cifar", cfg, channels=22, layers=5)


_register_all()
