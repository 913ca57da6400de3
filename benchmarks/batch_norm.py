"""What the fast backward pass of batch norm saves in a training step: two copies of a network in turn.

python benchmarks/batch_norm.py [channels] [repetitions]
"""

import copy
import platform
import sys
import time
from typing import Any

import timm
import torch
import torch.nn.functional as F

import dots_zoo
from dots_zoo.kernels import replace_with_fast_layers


def seconds(network: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    began = time.perf_counter()
    network.zero_grad()
    F.cross_entropy(network(images), labels).backward()
    return time.perf_counter() - began


def main(channels: int, repetitions: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = {"channels": channels, "layers": 8, "num_classes": 10}
    plain = timm.create_model("cell_cifar", genotype="dots_cifar10", **shape)
    plain = plain.to(memory_format=torch.channels_last).train()
    quick = copy.deepcopy(plain)
    replace_with_fast_layers(quick)
    images = torch.randn(64, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(64) % 10
    pairs = [(seconds(plain, images, labels), seconds(quick, images, labels)) for _ in range(repetitions)]
    least = [min(column) for column in zip(*pairs, strict=True)]
    print(
        f"forward and backward, dots_cifar10 with {channels} channels and 8 cells, batch 64: "
        f"plain {least[0]:.2f} s, quick {least[1]:.2f} s, ratio {least[1] / least[0]:.2f}; "
        f"minima of {repetitions}, one thread, {platform.machine()}, python {platform.python_version()}, "
        f"torch {torch.__version__}, dots_zoo {dots_zoo.__version__}"
    )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*(numbers + [16, 5][len(numbers) :]))
