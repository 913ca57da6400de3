"""A method, an operation, a space of one's own: `dots-zoo search lazy --plugin my_search.py --space mine`."""

from dataclasses import dataclass, field
from functools import partial

from torch import nn

import dots_zoo
from dots_zoo.search.methods import TrainingConfig, bilevel, darts_space, operation_search, train_weights


def depthwise(c, stride, affine):
    """Build a depthwise convolution: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, stride, 1, groups=c), nn.BatchNorm2d(c, affine=affine))


@dataclass(frozen=True)
class LazyConfig:
    """Lazy: DARTS that trains the logits in every second step.

    Args:
        epochs: of the operation search.
        warm_up: its first epochs, which train weights only.
        cells: depth of the supernet.
    """

    epochs: int = 50
    warm_up: int = 0
    cells: int = 8
    training: TrainingConfig = field(default_factory=TrainingConfig)


def lazy(context):
    """Train the logits on the validation split, then the weights; in every second step the weights alone."""
    return train_weights(context) if context.step_index.step % 2 else bilevel(context)


dots_zoo.register_operation(dots_zoo.Operation("depthwise_3x3", depthwise, "depthwise 3×3", "#56B4E9"))
dots_zoo.register_space(dots_zoo.NamedSpace("mine", darts_space(("skip_connect", "depthwise_3x3"), 2)))
dots_zoo.register_method(dots_zoo.Method("lazy", LazyConfig, partial(operation_search, step=lazy)))
