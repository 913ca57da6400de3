"""`dots-zoo det|seg check`: count the costs of a config, train and predict once, without data."""

from functools import partial
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData, PixelData

from ..macs import count
from ..runtime.errors import DotsZooError
from .backbone import DotsBackbone
from .check_data import class_names
from .config import backbone_of, build_model
from .progress import quiet

SIDE = 128  # pixels of the generated images


def check(cfg: Any, task: str, input_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Build, count, train for one step and predict once.

    input_size: height and width that the MACs are counted at; if not given the config's `input_size`. The
    MACs are those of the path to the boxes or labels: auxiliary heads have parameters and cost nothing there.
    Raises DotsZooError where the model cannot do it.
    """
    size = input_size or cfg.get("input_size")
    if size is None:
        raise DotsZooError("check: the config has no input_size = (height, width): pass --input HxW")
    with quiet():
        names = class_names(cfg)
        model: Any = revert_sync_batchnorm(build_model(cfg, task))
        costs = count(model, (3, *size))
        if hasattr(model.data_preprocessor, "size"):
            model.data_preprocessor.size = (SIDE, SIDE)  # mmseg's fills training images up to the crop
        batch = partial(_batch, task, len(names))
        loss, changed = _train_step(model, cfg, batch())
        prediction = _predict(model, task, batch())
    backbone = next((part for part in model.modules() if isinstance(part, DotsBackbone)), None)
    return {
        "model": (backbone_of(cfg.model) or cfg.model.backbone).get("model_name", cfg.model.backbone.type),
        "parameters": costs.params,
        "macs": costs.macs,
        "input_size": list(size),
        "channels": backbone.out_channels if backbone else None,
        "strides": backbone.strides if backbone else None,
        "classes": len(names),
        "loss": loss,
        "parameters_changed": changed,
        "prediction": prediction,
    }


def _train_step(model: Any, cfg: Any, batch: Any) -> tuple[float, int]:
    """Train one step on two generated images; return the loss and the number of changed parameter tensors."""
    before = [p.detach().clone() for p in model.parameters()]
    model.train()
    losses = model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    loss = float(losses["loss"])
    if not torch.isfinite(torch.tensor(loss)):
        raise DotsZooError(f"check: the loss of the first step is {loss}")
    return loss, sum(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def _predict(model: Any, task: str, batch: Any) -> str:
    """Predict two generated images; return what the first prediction holds."""
    model.eval()
    with torch.no_grad():
        [sample, _] = model.test_step(batch)
    if task == "det":
        return f"{len(sample.pred_instances)} boxes"
    height, width = sample.pred_sem_seg.data.shape[-2:]
    return f"{height}x{width} labels"


def _batch(task: str, classes: int) -> dict[str, Any]:
    """Return two images of noise with a box or with random labels each, as a dataloader would."""
    draws = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, SIDE, SIDE), generator=draws, dtype=torch.uint8) for _ in range(2)]
    make = _box if task == "det" else _labels
    return {"inputs": images, "data_samples": [make(classes, draws) for _ in images]}


def _info() -> dict[str, Any]:
    sizes = {key: (SIDE, SIDE) for key in ("img_shape", "ori_shape", "pad_shape", "batch_input_shape")}
    return {**sizes, "scale_factor": (1.0, 1.0), "img_id": 0}


def _box(classes: int, draws: torch.Generator) -> Any:
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=_info())
    box = torch.tensor([[0.2, 0.2, 0.7, 0.6]]) * SIDE
    sample.gt_instances = InstanceData(bboxes=box, labels=torch.randint(0, classes, (1,), generator=draws))
    return sample


def _labels(classes: int, draws: torch.Generator) -> Any:
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=_info())
    sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, SIDE, SIDE), generator=draws))
    return sample
