"""Pointwise convolutions and their gradients, as loops over tiles of pixels that numba compiles.

Maps are (N, H, W, C), of single or double precision; SIMD_WIDTH divides the numbers of channels. A tile is
several pixels or rows by SIMD_WIDTH channels, whose sums stay in registers.
"""

import numpy as np

from .elementwise import Map, PerChannel
from .jit import SIMD_WIDTH, compiled, inlined
from .simd import WIDE, add, add_multiples, add_squares, load, load_all, store, subtract, zeros

Tile = tuple[int, ...]  # its length, the height of a tile, is part of its type

# Sums of eight registers, and of the pixels that remain.
TILES: tuple[Tile, Tile] = (0,) * (8 if WIDE else 4), (0,)


@inlined
def write_products(x: Map, matrix: Map, mean: Map, out: Map, tiles: tuple[Tile, Tile], squares: Map) -> None:
    """Write out (P, C') = x M - mean, x (P, C) and M (C, C').

    The sums over pixels of out^2 are added to squares (C',).
    """
    (many, one), (pixels, depth), into = tiles, x.shape, len(mean)
    source, values, target = x.reshape(-1), matrix.reshape(-1), out.reshape(-1)
    for c in range(0, into, SIMD_WIDTH):
        shift, total, p = load(mean, c), load(squares, c), 0
        for _ in range(pixels // len(many)):
            sums = zeros(x, many)
            for k in range(depth):
                sums = add_multiples(sums, source, p * depth + k, depth, load(values, k * into + c))
            sums = subtract(sums, shift)
            store(target, p * into + c, into, sums)
            total = add_squares(total, sums)
            p += len(many)
        for _ in range(pixels % len(many)):
            rest = zeros(x, one)
            for k in range(depth):
                rest = add_multiples(rest, source, p * depth + k, depth, load(values, k * into + c))
            rest = subtract(rest, shift)
            store(target, p * into + c, into, rest)
            total = add_squares(total, rest)
            p += 1
        store(squares, c, 0, (total,))


@compiled
def convolve_pixels(
    maps: tuple[Map, Map],
    matrix: Map,
    mean: PerChannel,
    tiles: tuple[Tile, Tile],
    squares: PerChannel,
    first: int,
    last: int,
) -> None:
    """Convolve the pixels of images: out = x M - mean.

    Args:
        maps: x (N, H, W, C) and out (N, H, W, C').
        matrix: M (C, C').
        mean: (C',).
        squares: (C',), to which the sums over pixels of out^2 are added.
        first, last: range of images.
    """
    (x, out), (depth, into), pixels = maps, matrix.shape, maps[0].shape[1] * maps[0].shape[2]
    shift, of_image = np.empty(into, x.dtype), np.empty(into, x.dtype)
    for c in range(into):
        shift[c] = mean[c]
    for n in range(first, last):
        of_image[:] = 0  # summed in the map's precision over an image, in double precision over images
        left, right = x[n].reshape(pixels, depth), out[n].reshape(pixels, into)
        write_products(left, matrix, shift, right, tiles, of_image)
        for c in range(into):
            squares[c] += of_image[c]


@inlined
def add_outer_products(left: Map, right: Map, out: Map, many: Tile) -> None:
    """Add the sum over P pixels of left (P, C') times right (P, C) to out (C', C)."""
    pixels, height = left.shape
    width = right.shape[1]
    rows, columns, target = left.reshape(-1), right.reshape(-1), out.reshape(-1)
    for row in range(0, height, len(many)):
        for c in range(0, width, SIMD_WIDTH):
            sums = zeros(left, many)
            for p in range(pixels):
                sums = add_multiples(sums, rows, p * height + row, 1, load(columns, p * width + c))
            at = row * width + c
            store(target, at, width, add(load_all(target, at, width, many), sums))
