"""Replace the operators of mmcv that RetinaNet needs, where mmcv was installed without compiling.

mmcv-lite ships the Python side of `mmcv.ops` and not its compiled module `mmcv._ext`, so MMDetection and
MMSegmentation cannot even be imported. `install` puts a module of that name in its place: non-maximum
suppression and the sigmoid focal loss come from torchvision, every other operator raises when it is called. A
compiled mmcv is left alone.

    python -m dots_zoo.openmm.mmcv_ops tools/test.py CONFIG CHECKPOINT    any script of theirs, with it
    installed

Source: the operators' contracts in mmcv 2.1.0 (mmcv/ops/nms.py, focal_loss.py); Lin et al. (2017), Eq. 5.
"""

import importlib.util
import runpy
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms as torchvision_nms
from torchvision.ops import sigmoid_focal_loss

from ..runtime.errors import DotsZooError

EXTENSION = "mmcv._ext"


def install() -> bool:
    """Put a placeholder where mmcv has no compiled operators; return True where it is in place afterwards.

    Has to run before `mmcv.ops`, `mmdet` or `mmseg` are imported; further calls change nothing.
    """
    if EXTENSION in sys.modules:
        return isinstance(sys.modules[EXTENSION], _Operators)
    if importlib.util.find_spec(EXTENSION) is not None:
        return False
    import mmcv

    module = _Operators(EXTENSION, __doc__)
    module.__spec__ = ModuleSpec(EXTENSION, None, origin=__name__)  # mmengine asks find_spec for it
    sys.modules[EXTENSION] = mmcv._ext = module
    return True


class _Operators(ModuleType):
    """`mmcv._ext`: the operators below by name; any other name is an operator that raises when called."""

    nms: Callable[..., Tensor]

    def __init__(self, name: str, doc: str | None) -> None:
        super().__init__(name, doc)
        self.nms = nms
        self.sigmoid_focal_loss_forward = sigmoid_focal_loss_forward
        self.sigmoid_focal_loss_backward = sigmoid_focal_loss_backward

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):  # of the import system, __path__ for one
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

        def operator(*args: object, **kwargs: object) -> NoReturn:
            raise DotsZooError(
                f"mmcv operator {name!r}: mmcv is installed without compiled operators, and of those only "
                "nms and the sigmoid focal loss are replaced; to have it, put a compiled mmcv in place of "
                "mmcv-lite (pip uninstall mmcv-lite; mim install mmcv==2.1.0, with a torch it is built for)"
            )

        return operator


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Return the indices of the boxes kept, best score first.

    boxes: (N, 4) as x1, y1, x2, y2. scores: (N,). A box is (x2 - x1 + offset) wide: with offset 1 the
    corners are pixels that belong to it.
    """
    corners = boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes
    kept: Tensor = torchvision_nms(corners, scores, iou_threshold)
    return kept


def _focal(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return -alpha_t (1 - p_t)^gamma log(p_t) (N, C) of logits (N, C) and classes (N,), C for background."""
    classes = logits.shape[1]
    one_hot = F.one_hot(target, classes + 1)[:, :classes].to(logits)
    loss: Tensor = sigmoid_focal_loss(logits, one_hot, alpha, gamma)
    return loss * weight[target, None] if weight.numel() else loss


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every element into `output`, (N, C). weight: (C,), or empty for none."""
    output.copy_(_focal(logits, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every element's loss by its logit into `grad_input`, (N, C)."""
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        loss = _focal(leaf, target, weight, gamma, alpha).sum()
        grad_input.copy_(torch.autograd.grad(loss, leaf)[0])


def main(argv: list[str]) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` would, with the placeholder installed."""
    if not argv or not Path(argv[0]).is_file():
        raise SystemExit(
            "usage: python -m dots_zoo.openmm.mmcv_ops SCRIPT [ARGUMENT ...], a script of mmdet or mmseg"
        )
    install()
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).resolve().parent))
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
