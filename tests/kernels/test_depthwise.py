"""The depthwise convolution with its own backward pass against the library's, in double precision."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dots_zoo.kernels import DepthwiseConv, depthwise, depthwise_loops
from dots_zoo.kernels.depthwise import (
    depthwise_conv,
    depthwise_conv_reference,
    depthwise_weight_grad,
    depthwise_weight_grad_reference,
    is_square_depthwise,
)
from helpers.operators import assert_as_precise, counted, draw, opcheck, results, threads

LAST, FIRST = torch.channels_last, torch.contiguous_format


def compare(size: tuple[int, int, int, int], taps: int, numbers: tuple[int, int, int], last: bool) -> None:
    """Output and gradients of one convolution; numbers: stride, padding, dilation."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(size, generator=generator, dtype=torch.float64)
    kernel = torch.randn(size[1], 1, taps, taps, generator=generator, dtype=torch.float64)
    found: list[list[Tensor]] = []
    for function in (depthwise, lambda x, w, *rest: F.conv2d(x, w, None, *rest, groups=len(w))):
        x = values.contiguous(memory_format=LAST if last else FIRST).requires_grad_()
        weight = kernel.clone().requires_grad_()
        out = function(x, weight, *numbers)
        pull = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape)
        found.append([out, *torch.autograd.grad((out * pull).sum(), (x, weight))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 2, 3, 4, 16, 20, 32]),
    st.integers(3, 11),
    st.integers(3, 11),
    st.sampled_from([1, 2, 3, 5, 7]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 7),
    st.booleans(),
)
def test_every_shape_has_the_library_s_output_and_gradients(
    batch: int,
    channels: int,
    height: int,
    width: int,
    taps: int,
    stride: int,
    dilation: int,
    padding: int,
    last: bool,
) -> None:
    reach = dilation * (taps - 1) + 1
    padding = max(padding, (reach - min(height, width) + 1) // 2)  # at least one pixel comes out
    compare((batch, channels, height, width), taps, (stride, padding, dilation), last)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("side", [1, 2, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("taps, dilation", [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2)])
def test_the_convolutions_of_the_candidate_operations(
    taps: int, dilation: int, stride: int, side: int, last: bool
) -> None:
    compare((1, 3, side, side + 1), taps, (stride, dilation * (taps // 2), dilation), last)


@pytest.mark.parametrize("channels", [15, 16, 17, 32, 40])
@pytest.mark.parametrize("count", [1, 2])
def test_any_number_of_channels_on_any_number_of_threads(channels: int, count: int) -> None:
    loops = counted(depthwise_loops, "convolve_images", "add_gradients")
    with threads(count), loops as calls:
        for stride, dilation in ((1, 2), (2, 1), (2, 2)):
            compare((3, channels, 6, 5), 5, (stride, 2 * dilation, dilation), True)
    assert "add_gradients" in calls and ("convolve_images" in calls) == (channels % 16 == 0)


@pytest.mark.parametrize("taps, stride, dilation", [(3, 1, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_in_float32_the_error_is_that_of_the_reference(taps: int, stride: int, dilation: int) -> None:
    geometry = stride, dilation * (taps // 2), dilation

    def inputs(dtype: torch.dtype) -> list[Tensor]:
        return [draw(4, 32, 12, 12, dtype=dtype), draw(32, 1, taps, taps, dtype=dtype, seed=1)]

    exact = results(depthwise_conv_reference, inputs(torch.double), *geometry)
    single = [
        results(function, inputs(torch.float), *geometry)
        for function in (depthwise, depthwise_conv_reference)
    ]
    assert_as_precise(*single, exact)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("channels", [4, 16])
def test_the_operators_keep_their_contract(channels: int, dtype: torch.dtype) -> None:
    x, weight = draw(2, channels, 6, 5, dtype=dtype), draw(channels, 1, 5, 5, dtype=dtype, seed=1)
    opcheck(depthwise_conv, (x, weight, 1, 4, 2))
    opcheck(depthwise_weight_grad, (x, x, 5, 1, 4, 2))


def test_a_gradient_of_weights_is_that_of_the_reference() -> None:
    x, grad = draw(2, 5, 7, 6), draw(2, 5, 4, 3, seed=1)
    ours, theirs = (f(x, grad, 3, 2, 1, 1) for f in (depthwise_weight_grad, depthwise_weight_grad_reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_first_and_second_derivatives_are_those_of_finite_differences(stride: int, dilation: int) -> None:
    x, weight = draw(2, 2, 5, 4), draw(2, 1, 5, 5, seed=1)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise(x, weight, stride, 2 * dilation, dilation)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


def test_the_loops_of_sixteen_channels_are_differentiated_too() -> None:
    x, weight = draw(1, 16, 2, 3), draw(16, 1, 3, 3, seed=1)
    with counted(depthwise_loops, "convolve_images", "add_gradients") as calls:
        assert torch.autograd.gradcheck(lambda x, weight: depthwise(x, weight, 1, 1), (x, weight))
    assert {*calls} == {"convolve_images", "add_gradients"}


def test_a_frozen_weight_costs_no_gradient() -> None:
    x, weight = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(2, 1, 3, 3)
    with counted(depthwise_loops, "add_gradients") as calls:
        depthwise(x, weight, 1, 2, 2).sum().backward()
    assert not calls
    assert x.grad is not None and x.grad[0, 0].tolist() == [[4.0] * 4] * 4  # every pixel is read by four


def test_off_the_cpu_it_is_the_library_s_convolution() -> None:
    out = depthwise(torch.ones(1, 2, 9, 9, device="meta"), torch.ones(2, 1, 3, 3, device="meta"), 2, 2, 2)
    assert out.shape == (1, 2, 5, 5) and out.device.type == "meta"


def test_under_autocast_it_computes_and_returns_bfloat16() -> None:
    x, weight = torch.randn(1, 2, 6, 6, requires_grad=True), torch.randn(2, 1, 3, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x, weight, 1, 2, 2)
    out.float().sum().backward()
    assert out.dtype is torch.bfloat16 and x.grad is not None and x.grad.dtype is torch.float32
    exact = F.conv2d(x, weight, None, 1, 2, 2, groups=2)
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.1)


def test_a_layer_takes_the_place_of_another_with_its_weight() -> None:
    conv = nn.Conv2d(4, 4, 5, 2, 4, dilation=2, groups=4, bias=False).eval()
    ours = DepthwiseConv(conv)
    assert ours.weight is conv.weight and not ours.training and list(ours.state_dict()) == ["weight"]
    x = torch.randn(2, 4, 7, 7)
    torch.testing.assert_close(ours(x), conv(x))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.Conv2d(4, 4, (3, 1), groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4, bias=False),
        nn.ReLU(),
    ],
)
def test_other_layers_are_told_apart(conv: nn.Module) -> None:
    assert not is_square_depthwise(conv)
    assert is_square_depthwise(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False))
