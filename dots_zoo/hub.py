"""Describe a trained network as timm and transformers read it: config.json beside model.safetensors.

`save_for_hf` of timm 1.0.31 writes the number of classes twice, once into the arguments, where transformers 5
refuses it for every model of timm's, and class names where transformers does not look for them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save
from timm.models._hub import save_config_for_hf
from torch import nn

from .runtime.atomic_write import write_files
from .runtime.errors import DotsZooError
from .runtime.run_folder import make_folder

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def hub_config(
    model: nn.Module,
    *,
    label_names: Sequence[str] | None = None,
    data_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of config.json.

    Args:
        model: a network that timm.create_model built.
        label_names: names of the classes in order; the model's own if not given, none if empty.
        data_config: entries that differ from the model's own: input_size, mean, std, interpolation, crop_pct.

    Raises DotsZooError where timm cannot describe the model, and where the names are not one a class.
    """
    own: Any = getattr(model, "pretrained_cfg", None)
    if own is None:
        raise DotsZooError(
            f"{type(model).__name__}: expected a network of timm.create_model, got one without pretrained_cfg"
        )
    with TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG
        try:
            save_config_for_hf(model, str(path), data_config=dict(data_config or {}))
        except (ValueError, TypeError, AttributeError) as error:
            raise DotsZooError(f"{type(model).__name__}: timm cannot describe it: {error}") from error
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    # timm looks at the top for both, transformers at the top alone, and passes the number of classes itself.
    config["model_args"] = {k: v for k, v in config.get("model_args", {}).items() if k != "num_classes"}
    del config["pretrained_cfg"]["num_classes"]
    own_names = config["pretrained_cfg"].pop("label_names", None)
    names = own_names if label_names is None else list(label_names)
    if names and len(names) != config["num_classes"]:
        raise DotsZooError(
            f"label_names: expected a name for each of {config['num_classes']} classes, got {len(names)}"
        )
    return {**config, **({"label_names": names} if names else {})}


def save_for_hf(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    label_names: Sequence[str] | None = None,
    data_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a network into a folder that timm (`local-dir:FOLDER`) and transformers load; return the folder.

    Arguments as for `hub_config`. Raises DotsZooError as there, and where the files cannot be written.
    """
    config = hub_config(model, label_names=label_names, data_config=data_config)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    folder = Path(folder)
    make_folder(folder)
    contents = {WEIGHTS: save(weights, {"format": "pt"}), CONFIG: json.dumps(config, indent=2).encode()}
    write_files(folder, contents)
    return folder
