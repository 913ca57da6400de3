"""The faster batch norm against torch's own, in double precision."""

import pytest
import torch
from torch import Tensor, nn

from dots_zoo.kernels.batch_norm import QuickNorm


def norms(channels: int) -> tuple[nn.BatchNorm2d, QuickNorm]:
    generator = torch.Generator().manual_seed(1)
    plain, other = (nn.BatchNorm2d(channels, momentum=0.3).double() for _ in range(2))
    for norm in (plain, other):
        generator.manual_seed(1)
        with torch.no_grad():
            norm.weight.copy_(torch.randn(channels, generator=generator))
            norm.bias.copy_(torch.randn(channels, generator=generator))
    return plain, QuickNorm(other)


@pytest.mark.parametrize("format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 1, 1, 3), (4, 16, 8, 8)])
def test_output_gradients_and_statistics_are_torch_s(
    shape: tuple[int, int, int, int], format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    values, pull = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    results: list[list[Tensor]] = []
    for norm in norms(shape[1]):
        x = (values * 3 + 10).contiguous(memory_format=format).requires_grad_()
        for _ in range(2):
            out = norm(x)
        (out * pull).sum().backward()
        assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        buffers = [buffer.double() for buffer in norm.buffers()]
        results.append([out, x.grad, norm.weight.grad, norm.bias.grad, *buffers, norm.eval()(x)])
    for plain, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-9, atol=1e-9)
