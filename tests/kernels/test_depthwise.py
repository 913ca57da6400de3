"""The depthwise convolution with its own backward pass against the library's, in double precision."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dots_zoo.kernels.depthwise import DepthwiseConv, depthwise, is_square_depthwise, skips_odd
from dots_zoo.kernels.depthwise_forward import of_images

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


@pytest.mark.parametrize("channels", [15, 16, 17, 40])
@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_channels_on_any_number_of_threads(channels: int, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for stride in (1, 2):
            compare((3, channels, 6, 5), 5, (stride, 4, 2 if stride == 1 else 1), True)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(2, 16, 5, 7), (3, 48, 4, 4), (1, 16, 1, 1)])
@pytest.mark.parametrize("taps, stride, dilation", [(3, 1, 1), (5, 2, 1), (3, 1, 2)])
def test_a_loop_reads_a_scaled_relu_and_sums_what_it_writes(
    size: tuple[int, int, int, int], taps: int, stride: int, dilation: int
) -> None:
    draws, numbers = torch.Generator().manual_seed(0), (stride, dilation * (taps // 2), dilation)
    x = torch.randn(size, generator=draws).double().contiguous(memory_format=LAST)
    weight = torch.randn(size[1], 1, taps, taps, generator=draws).double()
    scales = torch.linspace(-1, 2, size[1]).double()
    for read, factors in ((x, scales[:0]), (F.relu(x * scales[:, None, None]), scales)):
        exact = F.conv2d(read, weight, None, *numbers, groups=size[1])
        found, sums = torch.empty_like(exact, memory_format=LAST), torch.zeros(size[1]).double()
        of_images(x, weight, numbers, found, factors.numpy())(sums.numpy(), 0, size[0])
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sums, exact.sum(dim=(0, 2, 3)), rtol=1e-12, atol=1e-12)


def test_what_is_no_number_passes_the_relu_of_a_loop() -> None:
    x = torch.full((1, 16, 3, 3), float("nan")).contiguous(memory_format=LAST)
    out, sums = torch.empty_like(x), torch.zeros(16).double()
    write = of_images(x, torch.ones(16, 1, 3, 3), (1, 1, 1), out, torch.ones(16).numpy())
    write(sums.numpy(), 0, 1)
    assert out.isnan().all() and sums.isnan().all()


def test_without_numba_it_is_the_library_s_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dots_zoo.kernels.depthwise.COMPILES", False)
    monkeypatch.setattr("dots_zoo.kernels.depthwise._Depthwise", None)
    assert depthwise(torch.ones(1, 2, 9, 9), torch.ones(2, 1, 5, 5), 1, 4, 2).shape == (1, 2, 9, 9)


def test_every_other_pixel_is_all_that_a_dilated_layer_of_stride_2_reads() -> None:
    conv = nn.Conv2d(4, 4, 5, 2, 4, dilation=2, groups=4, bias=False)
    x = torch.randn(2, 4, 9, 7)
    assert skips_odd(conv) and not skips_odd(nn.Conv2d(4, 4, 3, 2, 1, groups=4))
    torch.testing.assert_close(DepthwiseConv(conv, even=True)(x[:, :, ::2, ::2]), conv(x))


@pytest.mark.parametrize("stride, dilation", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_first_and_second_derivatives_are_those_of_finite_differences(stride: int, dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, generator=generator, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise(x, weight, stride, 2 * dilation, dilation)

    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


def test_a_frozen_weight_costs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dots_zoo.kernels.depthwise._WeightGradient", None)
    x, weight = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(2, 1, 3, 3)
    depthwise(x, weight, 1, 2, 2).sum().backward()
    assert x.grad is not None and x.grad[0, 0].tolist() == [[4.0] * 4] * 4  # every pixel is read by four


def test_off_the_cpu_it_is_the_library_s_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dots_zoo.kernels.depthwise._Depthwise", None)
    out = depthwise(torch.ones(1, 2, 9, 9, device="meta"), torch.ones(2, 1, 3, 3, device="meta"), 2, 2, 2)
    assert out.shape == (1, 2, 5, 5)


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
