"""Use any timm model as a backbone of MMDetection and MMSegmentation.

`custom_imports = dict(imports=["dots_zoo.openmm.backbone"])` in a config registers `DotsBackbone` in
mmengine's root registry, where both find it, and puts mmcv_ops in the place of mmcv's operators where
those were not compiled. What `import dots_zoo` does is done as well: our names are timm names.

Differs from MMPretrain's TIMMBackbone: genotypes, strict loading, frozen stages for any network, and frozen
batch norm only over loaded weights.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises; nothing is unpickled by it
from typing import Any

import numpy as np
import timm
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.models import is_model_in_modules
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..public_weights import body_weights
from ..runtime.errors import DotsZooError
from . import mmcv_ops


def _statistic(owner: type, name: str) -> Any:
    """Return a method by which a HistoryBuffer sums up its values; a checkpoint may name no other."""
    if owner is not HistoryBuffer or name.startswith("_"):
        raise UnpicklingError(f"getattr({owner!r}, {name!r})")
    return getattr(owner, name)


def _allow_logged_values() -> None:
    """Let torch.load(weights_only=True) read the logged values that mmengine keeps of a run."""
    arrays = np._core.multiarray  # type: ignore[attr-defined]
    dtypes = [type(np.dtype(name)) for name in ("f8", "f4", "i8", "i4")]
    readable = [HistoryBuffer, np.dtype, np.ndarray, arrays._reconstruct, arrays.scalar, *dtypes]
    torch.serialization.add_safe_globals([*readable, (_statistic, "builtins.getattr")])


mmcv_ops.install()
_allow_logged_values()


@MODELS.register_module()
class DotsBackbone(BaseModule):  # type: ignore[misc]
    """Feature maps of a timm model: (N, 3, H, W) -> a tuple of (N, C_i, ceil(H / s_i), ceil(W / s_i)).

    Args:
        model_name: timm name, ours or another, or local-dir:FOLDER of a training of ours.
        genotype: the cell of `cell_mobile`: a bundled name, a file or a text.
        model_kwargs: further arguments of the timm model, such as channels and layers.
        out_indices: timm's feature indices; by default strides 4, 8, 16, 32.
        frozen_stages: index of the last feature up to which nothing is trained: 0 is the one of stride 2.
        norm_eval: batch norm keeps its running statistics in training.
        with_cp: recompute activations in the backward pass.
        pretrained: load the timm model's own weights.
        checkpoint: file of weights to load: ours (safetensors), of public DARTS-family code, or timm's.
        drop_path_rate: stochastic depth.
        channels_last: compute in this memory format, which is the faster one on a CPU.
    Raises DotsZooError for weights that do not fit, and for frozen batch norm or stages without weights.
    """

    def __init__(
        self,
        model_name: str,
        genotype: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        drop_path_rate: float = 0.0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.loaded = pretrained or checkpoint is not None
        self.model_name, self.norm_eval, self.channels_last = model_name, norm_eval, channels_last
        if not self.loaded and (norm_eval or frozen_stages >= 0):
            raise DotsZooError(
                f"DotsBackbone {model_name}: norm_eval=True and frozen_stages >= 0 would freeze random "
                "values: pass pretrained=True or checkpoint, or train everything"
            )
        if pretrained and checkpoint is not None:
            raise DotsZooError(f"DotsBackbone {model_name}: pretrained and checkpoint are both set: keep one")
        if genotype is not None and not is_model_in_modules(model_name, ["zoo"]):
            raise DotsZooError(
                f"DotsBackbone {model_name}: a genotype is for a network of cells, such as cell_mobile"
            )
        arguments = {
            **(model_kwargs or {}),
            **({"genotype": genotype} if genotype is not None else {}),
            **({"drop_path_rate": drop_path_rate} if drop_path_rate else {}),
        }
        self.body = _features(model_name, tuple(out_indices), pretrained, checkpoint, arguments)
        for module in self.body.modules():  # NumClassCheckHook takes it for the number of a head's classes
            vars(module).pop("num_classes", None)
        self.out_channels: list[int] = self.body.feature_info.channels()
        self.strides: list[int] = self.body.feature_info.reduction()
        if with_cp:
            _checkpoint_activations(self.body)
        self.frozen = _freeze(self.body, list(out_indices), frozen_stages)
        if channels_last:
            self.body.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return tuple(self.body(images))

    def init_weights(self) -> None:
        """Log where the weights come from; timm and the constructor have set the values."""
        if not self.loaded:
            print_log(self.origin(), "current")
        self._is_init = True

    def origin(self) -> str:
        """Return where the weights come from, as a sentence."""
        where = "weights loaded" if self.loaded else "no weights given, training from scratch"
        return f"DotsBackbone {self.model_name}: {where}"

    def train(self, mode: bool = True) -> "DotsBackbone":
        super().train(mode)
        frozen = self.body.modules() if self.norm_eval else self.frozen
        for module in frozen:
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def _features(
    name: str,
    out_indices: tuple[int, ...],
    pretrained: bool,
    checkpoint: str | os.PathLike[str] | None,
    arguments: Mapping[str, Any],
) -> Any:
    """Build timm's feature network. A file's weights have to fit everything but the classifier."""
    overlay = None
    try:
        if checkpoint is not None:
            whole = timm.create_model(name, num_classes=0, **arguments)
            overlay = {"state_dict": body_weights(whole, Path(checkpoint))}
        return timm.create_model(
            name,
            pretrained=pretrained or checkpoint is not None,
            pretrained_cfg_overlay=overlay,
            features_only=True,
            out_indices=out_indices,
            **arguments,
        )
    except (RuntimeError, TypeError, AssertionError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise DotsZooError(
            f"DotsBackbone {name}: cannot be built with features {out_indices}"
            f"{f' and {dict(arguments)}' if arguments else ''}: {reason}"
        ) from error


def _checkpoint_activations(body: Any) -> None:
    """Recompute activations in the backward pass."""
    network = getattr(body, "model", body)  # FeatureGetterNet has the network inside
    try:
        network.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        raise DotsZooError(
            f"with_cp: {type(network).__name__} cannot recompute activations: leave it out"
        ) from None


def _freeze(body: nn.Module, out_indices: list[int], last: int) -> list[nn.Module]:
    """Stop training what feature `last` depends on; return the modules that hold it."""
    if last < 0:
        return []
    if last not in out_indices:
        raise DotsZooError(f"frozen_stages: expected -1 or one of out_indices {out_indices}, got {last}")
    body.eval()  # the running statistics stay as they are
    feature = body(torch.zeros(1, 3, 64, 64))[out_indices.index(last)]
    parameters = list(body.parameters())
    gradients = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
    before = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    for parameter in parameters:
        parameter.requires_grad_(id(parameter) not in before)
    return [m for m in body.train().modules() if any(id(p) in before for p in m.parameters(recurse=False))]
