"""The candidate operations against hand-written formulas: shapes, parameters, values."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dots_zoo.genotype import CELLS, primitives
from dots_zoo.ops import OPS, FactorizedReduce

C = 6
# Parameters at C channels: depthwise k*k*C, pointwise C*C, batch norm 2*C.
PARAMETERS = {
    ("none", 1): 0,
    ("max_pool_3x3", 1): 0,
    ("avg_pool_3x3", 1): 0,
    ("noise", 1): 0,
    ("skip_connect", 1): 0,
    ("skip_connect", 2): C * C + 2 * C,
    ("sep_conv_3x3", 1): 2 * (9 * C + C * C + 2 * C),
    ("sep_conv_5x5", 1): 2 * (25 * C + C * C + 2 * C),
    ("sep_conv_7x7", 1): 2 * (49 * C + C * C + 2 * C),
    ("dil_conv_3x3", 1): 9 * C + C * C + 2 * C,
    ("dil_conv_5x5", 1): 25 * C + C * C + 2 * C,
    ("conv_7x1_1x7", 1): 2 * 7 * C * C + 2 * C,
    ("nor_conv_1x1", 1): C * C + 2 * C,
    ("nor_conv_3x3", 1): 9 * C * C + 2 * C,
}


def test_the_table_is_the_vocabulary() -> None:
    assert set(OPS) == {name for space in CELLS for name in primitives(space)}


@pytest.mark.parametrize(("name", "stride"), PARAMETERS)
def test_parameters(name: str, stride: int) -> None:
    assert sum(p.numel() for p in OPS[name](C, stride, True).parameters()) == PARAMETERS[name, stride]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)])
def test_shapes_and_no_bias(name: str, stride: int, size: tuple[int, int]) -> None:
    op = OPS[name](C, stride, True)
    x = torch.randn(2, C, *size)
    kept = x.clone()
    assert op(x).shape == (2, C, -(-size[0] // stride), -(-size[1] // stride))
    assert torch.equal(x, kept), "the input is another edge's input too"
    assert all(m.bias is None for m in op.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("name", OPS)
def test_affine_is_the_batch_norm_s(name: str) -> None:
    plain = OPS[name](C, 2, False)
    assert all(not m.affine for m in plain.modules() if isinstance(m, nn.BatchNorm2d))


def test_separable_and_dilated_convolutions_by_hand() -> None:
    x = torch.randn(2, C, 9, 9)
    sep, dil = OPS["sep_conv_5x5"](C, 2, True), OPS["dil_conv_3x3"](C, 2, True)
    bn = nn.BatchNorm2d(C)

    def half(h: torch.Tensor, op: nn.Module, at: int, **conv: int) -> torch.Tensor:
        h = F.conv2d(h.relu(), op[at].weight, groups=C, **conv)
        return bn(F.conv2d(h, op[at + 1].weight))

    expected = half(half(x, sep, 1, stride=2, padding=2), sep, 5, stride=1, padding=2)
    torch.testing.assert_close(sep(x), expected)
    torch.testing.assert_close(dil(x), half(x, dil, 1, stride=2, padding=2, dilation=2))


def test_average_pooling_leaves_the_padding_out() -> None:
    ones = torch.ones(1, C, 4, 4)
    assert torch.equal(OPS["avg_pool_3x3"](C, 1, True)(ones), ones)


def test_factorized_reduce_sees_every_pixel_of_an_odd_map() -> None:
    op = FactorizedReduce(1, 2, affine=False).eval()
    with torch.no_grad():
        op.conv1.weight.fill_(1)
        op.conv2.weight.fill_(1)
        x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
        even, odd = op(x)[0] * (1 + op.bn.eps) ** 0.5  # fresh statistics: mean 0, variance 1
    torch.testing.assert_close(even, torch.tensor([[1.0, 3.0], [7.0, 9.0]]))
    torch.testing.assert_close(odd, torch.tensor([[5.0, 0.0], [0.0, 0.0]]))


def test_every_relu_of_factorized_reduce_is_called_once() -> None:
    op, calls = FactorizedReduce(2, 4), list[nn.Module]()
    for module in op.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda relu, _inputs, _output: calls.append(relu))
    op(torch.randn(2, 2, 5, 5))
    assert len(calls) == len(set(calls)) == 2


def test_noise_ignores_its_input() -> None:
    op = OPS["noise"](C, 2, True)
    x = torch.zeros(64, C, 8, 8)
    sample = op(x)
    assert abs(sample.mean().item()) < 0.05 and abs(sample.std().item() - 1) < 0.05
    assert not torch.equal(op(x), sample)
