"""What batch norm does with maps (N, C, H, W), channels last, in as few passes over memory as there can be.

On a CPU, in single and double precision, they are the loops of `elementwise.py` and, where LANES divides the
numbers of channels, of `pointwise.py`; elsewhere operators of PyTorch over rows of pixels. Sums are in
single precision at least. None of these keeps a history for a gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from .elementwise import (
    add_masked_pulls,
    add_pulls,
    add_sums,
    norm_factors,
    write_multiples,
    write_norm_gradient,
    write_scaled_relus,
    write_scaled_sum,
)
from .parallel import in_parts, sum_of
from .per_channel import LIKE, Numbers, has_loops, numbers_of, stacked, tensor_of, tiles
from .pointwise import TILES, write_all_products, write_means


class Norm(NamedTuple):
    """Of K batch norms, all (K, C): 1 / sqrt(var + eps), the factor s that y is multiplied by, and the sums
    over pixels of the gradient g and of g y.
    """

    inverse: Numbers
    scale: Numbers
    sums: Numbers
    dots: Numbers


def dense(x: Tensor) -> Tensor:
    """The same map in memory of its own, channels last."""
    return x.contiguous(memory_format=torch.channels_last)


def channel_sums(maps: Sequence[Tensor]) -> Numbers:
    """K maps -> (K, C), the sums over pixels."""
    if has_loops(maps[0]):
        maps = [dense(x) for x in maps]
        return _totals(add_sums, _per(maps), maps[0], _addresses(maps), *_type(maps[0]))
    return torch.stack([_folded(_rows(x), x) for x in maps])


def channel_pulls(grad: Tensor, ys: Sequence[Tensor]) -> Numbers:
    """A gradient g and K maps -> (1 + K, C), the sums over pixels of g, and of g y for all K."""
    if has_loops(grad):
        maps = [dense(x) for x in (grad, *ys)]
        return _totals(add_pulls, _per(maps), grad, maps[0].data_ptr(), _addresses(maps)[1:], *_type(grad))
    rows = _rows(grad)
    return torch.stack([_folded(rows, grad), *(_folded(rows * _rows(y), y) for y in ys)])


def masked_pulls(grads: Sequence[Tensor], ys: Sequence[Tensor]) -> Numbers:
    """K gradients and K maps -> (K, 2, C), the sums over pixels of g and of g y, g being the gradient where y
    is positive.
    """
    if has_loops(ys[0]):
        maps = [dense(x) for x in (*grads, *ys)]
        addresses, shape = _addresses(maps), (len(ys), 2, ys[0].shape[1])
        halves = addresses[: len(ys)], addresses[len(ys) :]
        return _totals(add_masked_pulls, shape, ys[0], *halves, *_type(ys[0]))
    masked = (torch.ops.aten.threshold_backward(g, y, 0) for g, y in zip(grads, ys, strict=True))
    return torch.stack([channel_pulls(g, [y]) for g, y in zip(masked, ys, strict=True)])


def scaled_sum(maps: Sequence[Tensor], scales: Numbers, onto: Tensor | None = None) -> Tensor:
    """K maps, (K, C) -> sum_k s_k y_k, added to a map, in its memory, where there is one."""
    if has_loops(maps[0]):
        maps = [dense(x) for x in maps]
        [out] = empties(maps[0], maps[0].shape) if onto is None else [onto]
        arrays = _addresses(maps), scales, out.data_ptr(), onto is not None, *_type(out)
        _in_parts(write_scaled_sum, out, *arrays)
        return out
    wide = _wide(scales, maps[0])
    total = _rows(maps[0]) * wide[0] if onto is None else _rows(onto).addcmul_(_rows(maps[0]), wide[0])
    for y, scale in zip(maps[1:], wide[1:], strict=True):
        total.addcmul_(_rows(y), scale)
    return _as_map(total, maps[0])


def multiples(x: Tensor, factors: Sequence[Numbers]) -> list[Tensor]:
    """A map, K scalars -> K maps, w_k x."""
    if not has_loops(x):
        return [x * factor.to(x.dtype) for factor in factors]
    x = dense(x)
    outs = [torch.empty_like(x) for _ in factors]  # each of its own: the engine adds in place, and frees it
    numbers = np.array(factors, LIKE[x.dtype].dtype)
    _in_parts(write_multiples, x, x.data_ptr(), numbers, _pointers(outs), *_type(x))
    return outs


def scaled_relus(maps: Sequence[Tensor], scales: Numbers) -> list[Tensor]:
    """K maps, (K, C) -> K maps, relu(s_k y_k)."""
    if not has_loops(maps[0]):
        wide = _wide(scales, maps[0])
        return [_as_map((_rows(y) * s).relu_(), y) for y, s in zip(maps, wide, strict=True)]
    maps = [dense(x) for x in maps]
    outs = empties(maps[0], maps[0].shape, len(maps))
    _in_parts(write_scaled_relus, maps[0], _addresses(maps), scales, _addresses(outs), *_type(maps[0]))
    return outs


def products(
    maps: Sequence[Tensor], matrices: Sequence[Tensor], sums: Numbers
) -> tuple[list[Tensor], Numbers, Numbers]:
    """K maps (N, C, H, W), K times P (C', C, 1, 1), sums over pixels, (K, C) -> K maps y = P x - P mean(x),
    (N, C', H, W), means of P x and of y^2, (K, C').
    """
    count, (into, channels), like = _pixels(maps[0]), matrices[0].shape[:2], maps[0]
    if not tiles(like, (into, channels)):
        stack = torch.stack([*matrices]).flatten(2)
        of_x = (stack @ (tensor_of(sums, stack) / count)[:, :, None])[:, :, 0]
        terms = zip(maps, stack.to(like.dtype), -of_x.to(like.dtype), strict=True)
        ys = [dense(F.conv2d(x, matrix[:, :, None, None], shift)) for x, matrix, shift in terms]
        return ys, numbers_of(of_x, like), stacked([channel_pulls(y, [y])[1] for y in ys]) / count
    assert all(x.is_contiguous() and x.dtype == like.dtype for x in matrices), "a loop reads matrices by rows"
    maps, means = [dense(x) for x in maps], np.empty((len(maps), into), sums.dtype)
    addresses = _pointers(matrices)
    write_means(addresses, sums, count, means)
    ys = empties(like, (like.shape[0], into, *like.shape[2:]), len(maps))
    arrays = _addresses(maps), _type(like)[0], addresses, means, _addresses(ys), TILES
    return ys, means, _totals(write_all_products, means.shape, like, *arrays) / count


def product_gradient(
    maps: tuple[Tensor, Tensor, Tensor | None], matrix: Tensor, norm: Norm, masked: bool
) -> tuple[Tensor, Tensor | None]:
    """Of g, y = P x and x: dL/dx, and, unless there is no x, dL/dP, (C', C). norm, each (C',): of y.

    A shift of y has no effect behind a norm, so nothing comes from the mean.
    """
    grad, y, x = maps
    of_y = norm_gradient(grad, y, norm, masked)
    of_x = dense(F.conv2d(of_y, matrix.t().to(y.dtype)[:, :, None, None]))
    if x is None:
        return of_x, None
    of_matrix = conv2d_weight(x, [*matrix.shape, 1, 1], of_y).flatten(1)
    return of_x, of_matrix.to(matrix.dtype)


def norm_gradient(grad: Tensor, y: Tensor, norm: Norm, masked: bool) -> Tensor:
    """Of one norm: dL/dy = s (g - mean(g) - y mean(g y) inverse^2), g being the gradient of s y, and y
    without mean; where masked, the gradient where y is positive, and 0 elsewhere.
    """
    count = _pixels(y)
    if has_loops(y):
        [out] = empties(y, y.shape)
        factors = norm_factors(tuple(norm), count, y.shape[3], LIKE[y.dtype])
        arrays = _array(grad), _array(y), factors, masked, _array(out)
        _in_parts(write_norm_gradient, y, *arrays)
        return out
    mean, slope = norm.scale * norm.sums / -count, norm.scale * norm.inverse**2 * norm.dots / -count
    constant, of_y, of_grad = _wide(torch.stack([mean, slope, norm.scale]), y)
    rows = _rows(torch.ops.aten.threshold_backward(grad, y, 0) if masked else grad)
    return _as_map(torch.addcmul(constant, _rows(y), of_y).addcmul_(rows, of_grad), y)


def _per(maps: Sequence[Tensor]) -> tuple[int, int]:
    return len(maps), maps[0].shape[1]


def _totals(add: Callable[..., None], shape: tuple[int, ...], like: Tensor, *arrays: Any) -> Numbers:
    """What a loop adds to totals of a shape, in the precision of a map."""
    totals = _in_parts(add, like, *arrays, totals=shape)
    return totals.astype(LIKE[like.dtype].dtype, copy=False)


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

    found = in_parts(part, like.shape[0])
    return None if totals is None else sum_of(found)


def empties(like: Tensor, shape: Sequence[int], count: int = 1) -> list[Tensor]:
    """Maps, channels last, one behind the other, that are yet to be written."""
    size = count * shape[0], *shape[1:]
    maps = torch.empty(size, dtype=like.dtype, memory_format=torch.channels_last)
    return [maps] if count == 1 else [*maps.chunk(count)]


def _pixels(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _array(x: Tensor) -> Any:
    """(N, C, H, W) -> (N, H, W, C) of numpy, on the memory of x where it is channels last."""
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())


def _addresses(maps: Sequence[Tensor]) -> Any:
    """Of maps, channels last, that stay alive as long as they are used."""
    shape, kind = maps[0].shape, maps[0].dtype
    assert all(x.shape == shape and x.dtype == kind for x in maps), "loops take maps of one shape and type"
    return _pointers(maps)


def _pointers(tensors: Sequence[Tensor]) -> Any:
    return np.array([x.data_ptr() for x in tensors], np.intp)


def _type(x: Tensor) -> tuple[tuple[int, int, int, int], Any]:
    """The shape of a map (N, H, W, C), and an array of its type."""
    count, channels, height, width = x.shape
    return (count, height, width, channels), LIKE[x.dtype]


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
