"""Build the detectors and segmenters of det_configs and seg_configs for an export."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from dots_zoo.runtime.errors import DotsZooError

from .pre_post import normalisation

TOOLBOXES = {"detect": "det", "segment": "seg"}  # task -> the toolbox of its configs


def build_network(config: str, task: str, checkpoint: Path | None, genotype: str | None) -> nn.Module:
    """Build the network of a config with the weights of a training; pretrained_cfg holds the file's metadata.

    Raises DotsZooError where the packages are missing, there are no weights, or something does not fit.
    """
    if missing := [name for name in ("mmengine", "mmdet", "mmseg") if find_spec(name) is None]:
        raise DotsZooError(f'{" and ".join(missing)} not installed: pip install "dots-zoo[mm]"')
    from dots_zoo.openmm.check_data import class_names
    from dots_zoo.openmm.config import build_model, find

    path = find(config, TOOLBOXES[task])
    if checkpoint is None:
        raise DotsZooError(
            f"{config}: task {task} expected --checkpoint FILE, the weights of a training "
            f"(dots-zoo {TOOLBOXES[task]} train {config} ...), got none"
        )
    model = build_model(config, TOOLBOXES[task], checkpoint=checkpoint, genotype=genotype)
    cfg: Any = model.cfg
    mean, std, swapped = normalisation(model)
    if swapped:
        mean, std = mean.flip(0), std.flip(0)
    input_size = cfg.get("input_size")
    model.pretrained_cfg = {  # type: ignore[assignment]
        "architecture": path.stem,
        "input_size": (3, *input_size) if input_size else None,
        "mean": tuple((mean / 255).tolist()),
        "std": tuple((std / 255).tolist()),
        "label_names": list(class_names(cfg)),
    }
    return model
