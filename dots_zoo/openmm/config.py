"""Read a config of MMDetection or MMSegmentation, and build the model that it describes.

Differs from the toolboxes' own tools: a config is found by the name of a shipped one, `--genotype` puts a
cell into it, and the neck takes its channels from the backbone.
"""

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope
from timm.models import is_model_in_modules
from torch import nn

from ..genotype.schema import write_json
from ..reference import genotype_of
from ..runtime.errors import DotsZooError
from .backbone import DotsBackbone
from .progress import quiet

FOLDERS = {"det": "dots_zoo.det_configs", "seg": "dots_zoo.seg_configs"}
SCOPES = {"mmdet": "det", "mmseg": "seg"}


def shipped(task: str) -> dict[str, Path]:
    """Return the configs that come with the package, by name; `task` is 'det' or 'seg'."""
    spec = importlib.util.find_spec(FOLDERS[task])
    [folder] = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return {path.stem: path for path in sorted(Path(folder).glob("*.py")) if path.stem != "__init__"}


def find(config: str | Path, task: str) -> Path:
    """Return the file of a config, given its path or the name of a shipped one.

    Raises DotsZooError where there is none.
    """
    names = shipped(task)
    if str(config) in names:
        return names[str(config)]
    if not Path(config).is_file():
        raise DotsZooError(f"config {config}: no such file; shipped are {', '.join(names)}")
    return Path(config)


def load_config(
    config: str | Path,
    task: str,
    *,
    genotype: str | None = None,
    data_root: str | None = None,
    options: Sequence[str] = (),
) -> Any:
    """Read a config; set `options` (KEY=VALUE, dots inside KEY), the data's folder, the cell, the channels.

    Raises DotsZooError where it cannot be read or is of the other toolbox.
    """
    path = find(config, task)
    try:
        with quiet():
            cfg = Config.fromfile(path)
        cfg.merge_from_dict(_options(options))
    except DotsZooError:
        raise
    except Exception as error:  # a config is a program
        raise DotsZooError(f"config {path}: cannot be read: {type(error).__name__}: {error}") from error
    if SCOPES.get(cfg.get("default_scope")) != task or "model" not in cfg:
        raise DotsZooError(
            f"config {path}: dots-zoo {task} expected a model and default_scope "
            f"{'mmdet' if task == 'det' else 'mmseg'!r}, got default_scope {cfg.get('default_scope')!r}"
        )
    if data_root is not None:
        old = cfg.get("data_root", "")
        for key, value in list(cfg.items()):
            cfg[key] = _moved(value, old, data_root)
    if genotype is not None:
        put_genotype(cfg.model, genotype)
    fill_channels(cfg.model)
    return cfg


def _options(options: Sequence[str]) -> dict[str, Any]:
    pairs = [option.partition("=") for option in options]
    for key, sign, _ in pairs:
        if not key or not sign:
            raise DotsZooError(f"--cfg-options: expected KEY=VALUE, got {key!r}")
    return {key: DictAction._parse_iterable(value) for key, _, value in pairs}


def backbone_of(model: Any) -> Any:
    """Return the config of the DotsBackbone in a model's config, None where it has none."""
    part = model.get("backbone", {})
    part = part.get("backbone_cfg", part)
    return part if part.get("type") == "DotsBackbone" else None


def put_genotype(model: Any, genotype: str) -> None:
    """Build the backbone from the cell of a network (reference.py). The config keeps the cell itself."""
    cell = genotype_of(genotype)
    backbone = backbone_of(model)
    if backbone is None or not is_model_in_modules(backbone.model_name, ["zoo"]):
        name = "another backbone" if backbone is None else backbone.model_name
        raise DotsZooError(f"--genotype: expected a config whose backbone is a network of cells, got {name}")
    backbone.update(model_name="cell_mobile", genotype=write_json(cell))


def fill_channels(model: Any) -> None:
    """Give the neck the channels of the backbone's features, whatever it had; a DotsBackbone knows them."""
    backbone = backbone_of(model)
    if backbone is not None and isinstance(model.get("neck"), Mapping) and "in_channels" in model.neck:
        plain = {**backbone, "pretrained": False, "checkpoint": None, "frozen_stages": -1, "norm_eval": False}
        plain.pop("type")
        model.neck.in_channels = DotsBackbone(**plain).out_channels


def build_model(
    config: str | Path | Any, task: str, *, checkpoint: str | Path | None = None, genotype: str | None = None
) -> nn.Module:
    """Build a detector or segmenter in evaluation mode; model.cfg is its config.

    config: a path, a shipped name, or what load_config returned. checkpoint: weights of a training with
    mmengine; without, values are random. model.data_preprocessor takes images as mmcv reads them, BGR, and
    holds mean and std, (3, 1, 1), in the order of the network's channels: RGB where its _channel_conversion
    (of a detector) or channel_conversion (of a segmenter) is True, BGR where it is False. Raises DotsZooError
    where a config or a checkpoint does not fit.
    """
    cfg = load_config(config, task, genotype=genotype) if isinstance(config, str | Path) else config
    with quiet():
        _register(task)
        init_default_scope(cfg.default_scope)
        model: nn.Module = MODELS.build(_without_weights(cfg.model) if checkpoint else cfg.model)
    if checkpoint is not None:
        load_weights(model, Path(checkpoint))
    model.cfg = cfg
    return model.eval()


def _register(task: str) -> None:
    """Fill mmdet's or mmseg's registries."""
    if task == "det":
        from mmdet.utils import register_all_modules
    else:
        from mmseg.utils import register_all_modules
    register_all_modules(init_default_scope=False)


def _without_weights(model: Any) -> Any:
    """Return the config of a model that gets all its weights afterwards and is not trained."""
    model = copy.deepcopy(model)
    backbone = backbone_of(model)
    if backbone is not None:
        backbone.update(pretrained=False, checkpoint=None, frozen_stages=-1, norm_eval=False)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a checkpoint of mmengine strictly.

    Raises DotsZooError, with the model unchanged, where it cannot be read and where it does not fit.
    """
    if not path.is_file():
        raise DotsZooError(f"{path}: no such checkpoint file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = loaded["state_dict"]
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DotsZooError(
            f"{path}: not a checkpoint of mmengine that can be read safely ({reason})"
        ) from error
    expected = model.state_dict()
    wrong = [key for key in expected if key not in state or state[key].shape != expected[key].shape]
    extra = [key for key in state if key not in expected]
    if wrong or extra:
        first = (wrong or extra)[0]
        have, want = (tuple(s[first].shape) if first in s else "absent" for s in (state, expected))
        raise DotsZooError(
            f"{path}: does not fit the model of the config: {len(wrong)} weights are missing or of another "
            f"shape, {len(extra)} are left over (first: {first} is {have}, expected {want}); use the config "
            "and the genotype that it was trained with"
        )
    model.load_state_dict(state)


def _moved(part: Any, old: str, new: str) -> Any:
    """Return a plain copy in which every text that begins with the folder `old` begins with `new`."""
    if isinstance(part, Mapping):
        return {key: _moved(value, old, new) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(_moved(value, old, new) for value in part)
    if isinstance(part, str) and old and part.startswith(old):
        return f"{new.rstrip('/')}/{part[len(old) :].lstrip('/')}"
    return part
