"""Pointwise convolutions and their gradients, image by image, so that what lies between stays in the cache.

Maps are (N, H, W, C), of single or double precision; LANES divides the numbers of channels. Products are made
of tiles: EIGHT pixels or rows and LANES channels, which stay in registers. K maps are their addresses, see
`map_loops.py`.
"""

import numpy as np

from dots_zoo.lanes import (
    LANES,
    add_multiples,
    add_squares,
    add_to,
    array_at,
    compiled,
    load,
    minus,
    no_sums,
    store,
)

from .map_loops import Map, Maps, Shape

Tile = tuple[int, ...]  # as long as a tile is high: its length is part of its type

EIGHT: Tile = (0,) * 8
ONE: Tile = (0,)
TILES = EIGHT, ONE


@compiled
def write_products(
    x: Map, matrix: Map, mean: Map, out: Map, eight: Tile, one: Tile, squares: Map, first: int, last: int
) -> None:
    """out = x M - mean, matrix (C, C'), mean (C',), and squares (1, C') += sum over pixels of out^2."""
    pixels, (depth, into) = x.shape[1] * x.shape[2], matrix.shape
    source, numbers, target = x.reshape(-1), matrix.reshape(-1), out.reshape(-1)
    of_image = np.zeros(into, x.dtype)
    for image in range(first, last):
        of_image[:] = 0
        for c in range(0, into, LANES):
            shift, total, p = load(mean, c), load(of_image, c), image * pixels
            for _ in range(pixels // len(eight)):
                sums = no_sums(x, eight)
                for k in range(depth):
                    sums = add_multiples(sums, source, p * depth + k, depth, load(numbers, k * into + c))
                sums = minus(sums, shift)
                store(target, p * into + c, into, sums)
                total, p = add_squares(total, sums), p + len(eight)
            for _ in range(pixels % len(eight)):
                rest = no_sums(x, one)
                for k in range(depth):
                    rest = add_multiples(rest, source, p * depth + k, depth, load(numbers, k * into + c))
                rest = minus(rest, shift)
                store(target, p * into + c, into, rest)
                total, p = add_squares(total, rest), p + 1
            store(of_image, c, 0, (total,))
        for c in range(into):
            squares[0, c] += of_image[c]


@compiled
def add_outer_products(left: Map, right: Map, out: Map, eight: Tile) -> None:
    """out (C', C) += sum over P pixels of left (P, C') times right (P, C)."""
    pixels, height = left.shape
    width = right.shape[1]
    rows, columns, target = left.reshape(-1), right.reshape(-1), out.reshape(-1)
    for row in range(0, height, len(eight)):
        for c in range(0, width, LANES):
            sums = no_sums(left, eight)
            for p in range(pixels):
                sums = add_multiples(sums, rows, p * height + row, 1, load(columns, p * width + c))
            add_to(target, row * width + c, width, sums)


@compiled
def write_all_products(
    maps: Maps,
    shape: Shape,
    matrices: Map,
    means: Map,
    outs: Maps,
    tiles: tuple[Tile, Tile],
    squares: Map,
    first: int,
    last: int,
) -> None:
    """`write_products` of K maps: matrices (K, C, C'), means (K, C'), squares (K, C')."""
    eight, one = tiles
    count, height, width, _ = shape
    for k in range(len(maps)):
        x = array_at(maps[k], shape, matrices)
        out = array_at(outs[k], (count, height, width, means.shape[1]), matrices)
        write_products(x, matrices[k], means[k], out, eight, one, squares[k : k + 1], first, last)
