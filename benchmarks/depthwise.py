"""What the depthwise convolution's own backward pass saves: both passes, the library's and ours in turn.

python benchmarks/depthwise.py [repetitions]
"""

import platform
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import dots_zoo
from dots_zoo.kernels import depthwise
from dots_zoo.runtime.malloc import keep_freed_memory

SIZES = ((64, 16, 32), (64, 32, 16), (64, 64, 8))  # batch, channels, side: the three resolutions on CIFAR
CONVOLUTIONS = ((3, 1), (5, 1), (7, 1), (3, 2), (5, 2))  # taps, dilation


def seconds(run: Callable[[], Tensor], inputs: tuple[Tensor, Tensor], pull: Tensor) -> float:
    began = time.process_time()
    torch.autograd.grad(run(), inputs, pull)
    return time.process_time() - began


def measure(
    size: tuple[int, int, int], taps: int, dilation: int, stride: int, repetitions: int
) -> list[float]:
    """Least milliseconds of the library and of ours."""
    batch, channels, side = size
    x = (
        torch.randn(batch, channels, side, side)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    weight = torch.randn(channels, 1, taps, taps, requires_grad=True)
    numbers = stride, dilation * (taps // 2), dilation
    runs = (
        lambda: F.conv2d(x, weight, None, *numbers, groups=channels),
        lambda: depthwise(x, weight, *numbers),
    )
    pull = torch.randn_like(runs[0]())
    pairs = [[seconds(run, (x, weight), pull) for run in runs] for _ in range(repetitions)]
    return [1000 * min(column) for column in zip(*pairs, strict=True)]


def main(repetitions: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| batch, channels, side | taps | dilation | stride | library, ms | ours, ms | ratio |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        for taps, dilation in CONVOLUTIONS:
            for stride in (1, 2):
                library, ours = measure(size, taps, dilation, stride, repetitions)
                row = (
                    *size,
                    f"{taps} | {dilation} | {stride} | {library:.2f} | {ours:.2f} | {library / ours:.1f}",
                )
                print("| {}, {}, {} | {} |".format(*row))
    print(
        f"CPU time, minima of {repetitions}, one thread, {platform.machine()}, "
        f"python {platform.python_version()}, torch {torch.__version__}, dots_zoo {dots_zoo.__version__}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
