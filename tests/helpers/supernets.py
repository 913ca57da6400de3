"""Search spaces, shapes and mixtures for tests of the supernet."""

import torch

from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.supernet import Mixture, Shape, everything

OPERATION_STAGE = darts_space()
TOPOLOGY_STAGE = SearchSpace(  # two survivors an edge, other ones on every edge, `none` among them
    2,
    (
        CellSpace(
            "normal",
            (
                ("skip_connect", "sep_conv_3x3"),
                ("none", "dil_conv_5x5"),
                ("max_pool_3x3", "sep_conv_5x5"),
                ("avg_pool_3x3", "dil_conv_3x3"),
                ("max_pool_3x3", "dil_conv_3x3"),
            ),
        ),
        CellSpace(
            "reduce",
            (
                ("skip_connect", "dil_conv_5x5"),
                ("max_pool_3x3", "sep_conv_3x3"),
                ("none", "sep_conv_5x5"),
                ("skip_connect", "dil_conv_3x3"),
                ("avg_pool_3x3", "sep_conv_3x3"),
            ),
        ),
    ),
)


def shape(channels=4, layers=5, classes=5, in_chans=3, **changes):
    return Shape(channels=channels, layers=layers, classes=classes, in_chans=in_chans, **changes)


def weights_for(space, dtype):
    draws = torch.Generator().manual_seed(3)
    shapes = {kind: (len(space.edges), max(map(len, space.candidates(kind)))) for kind in space.cell_types}
    return {
        kind: torch.rand(shape, generator=draws, dtype=dtype).requires_grad_()
        for kind, shape in shapes.items()
    }


def mixture_for(space, dtype=torch.float32, **changes):
    return Mixture(weights_for(space, dtype), {k: everything(space, k) for k in space.cell_types}, **changes)


def near(one, other):
    return (one - other).abs().max().item() <= 1e-9
