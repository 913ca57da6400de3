"""What batch norm does with maps (N, C, H, W), channels last, in as few passes over memory as there can be.

On a CPU, in single and double precision, they are the loops of `map_loops.py` and, where LANES divides the
numbers of channels, of `pointwise_loops.py`; elsewhere operators of PyTorch over rows of pixels. Sums are in
single precision at least. None of these keeps a history for a gradient.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from dots_zoo.lanes import LANES
from dots_zoo.parts import in_parts

from .map_loops import (
    add_masked_pulls,
    add_pulls,
    add_sums,
    write_norm_gradient,
    write_scaled_sum,
)
from .pointwise_loops import EIGHT, ONE, write_gradients, write_products


class Norm(NamedTuple):
    """Of a batch norm, all (C,): 1 / sqrt(var + eps), the factor s that y is multiplied by, and the sums over
    pixels of the gradient g and of g y.
    """

    inverse: Tensor
    scale: Tensor
    sums: Tensor
    dots: Tensor


def dense(x: Tensor) -> Tensor:
    """The same map in memory of its own, channels last."""
    return x.contiguous(memory_format=torch.channels_last)


def channel_sums(maps: Sequence[Tensor]) -> Tensor:
    """K maps -> (K, C), the sums over pixels."""
    if has_loops(maps[0]):
        return _totals(add_sums, _per(maps), maps[0], _arrays(maps))
    return torch.stack([_folded(_rows(x), x) for x in maps])


def channel_pulls(grad: Tensor, ys: Sequence[Tensor]) -> Tensor:
    """A gradient g and K maps -> (1 + K, C), the sums over pixels of g, and of g y for all K."""
    if has_loops(grad):
        return _totals(add_pulls, _per([grad, *ys]), grad, _array(grad), _arrays(ys))
    rows = _rows(grad)
    return torch.stack([_folded(rows, grad), *(_folded(rows * _rows(y), y) for y in ys)])


def masked_pulls(grad: Tensor, y: Tensor) -> Tensor:
    """(2, C), the sums over pixels of g, and of g y, g being the gradient where y is positive."""
    if has_loops(y):
        return _totals(add_masked_pulls, _per([grad, y]), y, _array(grad), _array(y))
    return channel_pulls(torch.ops.aten.threshold_backward(grad, y, 0), [y])


def scaled_sum(maps: Sequence[Tensor], scales: Tensor, relu: bool = False) -> Tensor:
    """K maps, (K, C) -> sum_k s_k y_k, or its ReLU."""
    if has_loops(maps[0]):
        target = _empty(maps[0], maps[0].shape[1])
        _in_parts(write_scaled_sum, target, _arrays(maps), _numbers(scales), relu, _array(target))
        return target
    wide = _wide(scales, maps[0])
    out = _rows(maps[0]) * wide[0]
    for y, scale in zip(maps[1:], wide[1:], strict=True):
        out.addcmul_(_rows(y), scale)
    return _as_map(out.relu_() if relu else out, maps[0])


def products(x: Tensor, matrix: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, H, W), (C', C), (C',) -> y = P x - mean, (N, C', H, W), and the sums of y^2 over pixels."""
    if not _tiles(x, matrix):
        y = dense(F.conv2d(x, matrix.to(x.dtype)[:, :, None, None], -mean.to(x.dtype)))
        return y, channel_pulls(y, [y])[1]
    y = _empty(x, len(matrix))
    arrays = _array(x), _numbers(matrix.t()), _numbers(mean), _array(y), EIGHT, ONE
    return y, _totals(write_products, (1, len(matrix)), y, *arrays)[0]


def products_gradient(
    maps: tuple[Tensor, Tensor, Tensor], matrix: Tensor, norm: Norm, masked: bool, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Of maps g, y = P x and x: dL/dx, and dL/dP where it is wanted, (C', C); else x is not looked at.

    A shift of y has no effect behind a norm, so nothing comes from the mean.
    """
    grad, y, x = maps
    if not _tiles(y, matrix):
        of_y = norm_gradient(grad, y, norm, masked)
        of_x = F.conv2d(of_y, matrix.t().to(y.dtype)[:, :, None, None])
        of_matrix = conv2d_weight(x, [*matrix.shape, 1, 1], of_y).flatten(1) if wanted else None
        return of_x, None if of_matrix is None else of_matrix.to(matrix.dtype)
    of_x = _empty(y, matrix.shape[1])
    arrays = (
        _arrays(maps),
        _arrays_of(norm),
        _pixels(y),
        masked,
        wanted,
        _numbers(matrix),
        _array(of_x),
        EIGHT,
        ONE,
    )
    found = _totals(write_gradients, tuple(matrix.shape), y, *arrays)
    return of_x, found if wanted else None


def norm_gradient(grad: Tensor, y: Tensor, norm: Norm, masked: bool) -> Tensor:
    """dL/dy = s (g - mean(g) - y mean(g y) inverse^2), g being the gradient of s y, and y without mean; where
    masked, the gradient where y is positive, and 0 elsewhere.
    """
    count = _pixels(y)
    if has_loops(y):
        out = _empty(y, y.shape[1])
        _in_parts(
            write_norm_gradient, y, _array(grad), _array(y), _arrays_of(norm), count, masked, _array(out)
        )
        return out
    mean, slope = norm.scale * norm.sums / -count, norm.scale * norm.inverse**2 * norm.dots / -count
    constant, of_y, of_grad = _wide(torch.stack([mean, slope, norm.scale]), y)
    rows = _rows(torch.ops.aten.threshold_backward(grad, y, 0) if masked else grad)
    return _as_map(torch.addcmul(constant, _rows(y), of_y).addcmul_(rows, of_grad), y)


def has_loops(x: Tensor) -> bool:
    """Whether a map is one for the compiled loops."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _tiles(x: Tensor, matrix: Tensor) -> bool:
    return has_loops(x) and not any(side % LANES for side in matrix.shape)


def _per(maps: Sequence[Tensor]) -> tuple[int, int]:
    return len(maps), maps[0].shape[1]


def _totals(add: Callable[..., None], shape: tuple[int, ...], like: Tensor, *arrays: Any) -> Tensor:
    """What a loop adds to totals of a shape, in the precision of a map."""
    totals = _in_parts(add, like, *arrays, totals=shape)
    return torch.from_numpy(totals.astype(np.float32) if like.dtype == torch.float32 else totals)


def _in_parts(
    loop: Callable[..., None], like: Tensor, *arrays: Any, totals: tuple[int, ...] | None = None
) -> Any:
    """Run a loop over the images of a map; the sum of what it adds to totals, if it has any."""

    def part(first: int, last: int) -> Any:
        if totals is None:
            return loop(*arrays, first, last)
        found = np.zeros(totals)
        loop(*arrays, found, first, last)
        return found

    found = in_parts(part, len(like))
    return None if totals is None else functools.reduce(np.add, found)


def written(loop: Callable[..., None], like: Tensor, maps: Sequence[Tensor], *numbers: Any) -> Tensor:
    """The map, of the shape of another, that a loop over images writes."""
    out = _empty(like, like.shape[1])
    _in_parts(loop, like, *_arrays(maps), *numbers, _array(out))
    return out


def _empty(like: Tensor, channels: int) -> Tensor:
    """A map, channels last, that is yet to be written."""
    shape = len(like), channels, *like.shape[2:]
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def _pixels(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _numbers(x: Tensor) -> Any:
    return x.contiguous().numpy()


def _arrays_of(norm: Norm) -> tuple[Any, ...]:
    return tuple(_numbers(x) for x in norm)


def _array(x: Tensor) -> Any:
    """(N, C, H, W) -> (N, H, W, C) of numpy, on the memory of x where it is channels last."""
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def _arrays(maps: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple(_array(x) for x in maps)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H, W * C), without a copy where it is channels last."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0] * x.shape[2], -1)


def _as_map(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows`."""
    n, channels, height, width = like.shape
    return rows.view(n, height, width, channels).permute(0, 3, 1, 2)


def _wide(numbers: Tensor, like: Tensor) -> Tensor:
    """(K, C) -> (K, W * C): one number for every one of a row, in the precision of a map."""
    return numbers.to(like.dtype).repeat(1, like.shape[3])


def _folded(rows: Tensor, like: Tensor) -> Tensor:
    """(N * H, W * C) -> (C,)"""
    precise = torch.promote_types(like.dtype, torch.float32)
    return rows.sum(dim=0, dtype=precise).view(like.shape[3], -1).sum(dim=0)
