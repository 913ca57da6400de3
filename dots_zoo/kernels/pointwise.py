"""Pointwise convolutions and their gradients, image by image, so that what lies between stays in the cache.

Maps are (N, H, W, C), of single or double precision; LANES divides the numbers of channels. Products are made
of tiles: many pixels or rows and LANES channels, which stay in registers. K maps are their addresses, see
`elementwise.py`.
"""

import numpy as np

from .elementwise import Map, Maps, Shape
from .jit import array_at, compiled
from .simd import LANES, WIDE, add_multiples, add_squares, add_to, load, minus, no_sums, store

Tile = tuple[int, ...]  # as long as a tile is high: its length is part of its type

TILES: tuple[Tile, Tile] = (0,) * (8 if WIDE else 4), (0,)  # sums of eight registers, and of what remains


@compiled
def write_products(
    x: Map, matrix: Map, mean: Map, out: Map, many: Tile, one: Tile, squares: Map, first: int, last: int
) -> None:
    """out = x M - mean, matrix (C, C'), mean (C',), and squares (1, C') += sum over pixels of out^2; of empty
    squares none are added.
    """
    pixels, (depth, into) = x.shape[1] * x.shape[2], matrix.shape
    source, numbers, target = x.reshape(-1), matrix.reshape(-1), out.reshape(-1)
    of_image = np.zeros(into, x.dtype)
    for image in range(first, last):
        of_image[:] = 0
        for c in range(0, into, LANES):
            shift, total, p = load(mean, c), load(of_image, c), image * pixels
            for _ in range(pixels // len(many)):
                sums = no_sums(x, many)
                for k in range(depth):
                    sums = add_multiples(sums, source, p * depth + k, depth, load(numbers, k * into + c))
                sums = minus(sums, shift)
                store(target, p * into + c, into, sums)
                total = add_squares(total, sums) if len(squares) else total
                p += len(many)
            for _ in range(pixels % len(many)):
                rest = no_sums(x, one)
                for k in range(depth):
                    rest = add_multiples(rest, source, p * depth + k, depth, load(numbers, k * into + c))
                rest = minus(rest, shift)
                store(target, p * into + c, into, rest)
                total = add_squares(total, rest) if len(squares) else total
                p += 1
            store(of_image, c, 0, (total,))
        for c in range(into * len(squares)):
            squares[0, c] += of_image[c]


@compiled
def add_outer_products(left: Map, right: Map, out: Map, many: Tile) -> None:
    """out (C', C) += sum over P pixels of left (P, C') times right (P, C)."""
    pixels, height = left.shape
    width = right.shape[1]
    rows, columns, target = left.reshape(-1), right.reshape(-1), out.reshape(-1)
    for row in range(0, height, len(many)):
        for c in range(0, width, LANES):
            sums = no_sums(left, many)
            for p in range(pixels):
                sums = add_multiples(sums, rows, p * height + row, 1, load(columns, p * width + c))
            add_to(target, row * width + c, width, sums)


@compiled
def write_means(matrices: Maps, sums: Map, count: int, means: Map) -> None:
    """means (K, C') = P mean(x), of K matrices P (C', C) at addresses; sums over `count` pixels, (K, C)."""
    (_, depth), into = sums.shape, means.shape[1]
    for k in range(len(matrices)):
        matrix = array_at(matrices[k], (into, depth), means)
        for row in range(into):
            total = 0.0
            for c in range(depth):
                total += matrix[row, c] * sums[k, c]
            means[k, row] = total / count


@compiled
def write_all_products(
    maps: Maps,
    shape: Shape,
    matrices: Maps,
    means: Map,
    outs: Maps,
    tiles: tuple[Tile, Tile],
    squares: Map,
    first: int,
    last: int,
) -> None:
    """`write_products` of K maps: matrices (C', C) at addresses, means (K, C'), squares (K, C')."""
    (count, height, width, depth), into = shape, means.shape[1]
    for k in range(len(maps)):
        x, matrix = array_at(maps[k], shape, means), array_at(matrices[k], (into, depth), means)
        out = array_at(outs[k], (count, height, width, into), means)
        write_products(x, matrix.T.copy(), means[k], out, *tiles, squares[k : k + 1], first, last)
