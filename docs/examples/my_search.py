"""A method, an operation, a space of one's own: `dots-zoo search lazy --plugin my_search.py --space mine`."""

from dataclasses import replace

from torch import nn

import dots_zoo
from dots_zoo.search.methods import darts, darts_space, train_weights


def depthwise(channels, stride, affine):
    """Build a depthwise convolution: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
    conv = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return nn.Sequential(nn.Hardswish(), conv, nn.BatchNorm2d(channels, affine=affine))


def lazy(config, space, after):
    """Return the stages of DARTS, in which every second step of the search trains the weights alone."""
    *warm_up, search = darts.stages(config, space, after)

    def step(context):
        return train_weights(context) if context.step_index.step % 2 else search.step(context)

    return (*warm_up, replace(search, step=step))


dots_zoo.register_operation(
    dots_zoo.Operation("depthwise_3x3", depthwise, label="depthwise 3×3", colour="#56B4E9", group="depthwise")
)
dots_zoo.register_space(
    dots_zoo.NamedSpace("mine", darts_space(("none", "skip_connect", "depthwise_3x3"), 2), "two nodes")
)
dots_zoo.register_method(
    dots_zoo.Method("lazy", darts.DartsConfig, lazy, text="Lazy: DARTS with half the steps of the logits")
)
