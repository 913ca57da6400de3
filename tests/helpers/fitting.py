"""Networks whose outputs mean something, and a tolerance that means something.

A fresh network in eval mode answers every image with its classifier's bias, so that comparing outputs proves
nothing. Every comparison therefore fits the batch-norm statistics, randomises the batch-norm scale, and is
judged relative to how much the output moves between inputs.
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def fitted(model: M, size: tuple[int, int, int], seed: int = 0) -> M:
    """Randomise the scales, fit the statistics to two batches, return the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average over the batches that follow
            if module.affine:
                with torch.no_grad():
                    module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    model.train()
    with torch.no_grad():
        for batch in range(2):
            model(images(size, 8, seed=1000 * seed + 100 + batch))
    return model.eval()


def images(size: tuple[int, int, int], batch: int = 2, seed: int = 1) -> Tensor:
    """(batch, *size): blobs of colour under noise, since noise alone looks the same to a pooled network."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(batch, size[0], 3, 3, generator=generator)
    noise = torch.randn(batch, *size, generator=generator)
    return F.interpolate(2 * blobs, size[1:], mode="bilinear", align_corners=False) + 0.5 * noise


def movement(model: nn.Module, size: tuple[int, int, int]) -> float:
    """The largest difference between outputs of different images; far from zero, or nothing is compared."""
    with torch.no_grad():
        output = model(images(size, 4, seed=2))
    moved = (output[0] - output[1:]).abs().max().item()
    assert moved > 0.05 * output.abs().max().item()
    return moved


def assert_same(got: Tensor, expected: Tensor, scale: float, tolerance: float = 1e-4) -> None:
    assert got.shape == expected.shape
    error = (got - expected).abs().max().item()
    assert error <= tolerance * scale, f"differs by {error:.3g}; outputs move by {scale:.3g}"
