"""What it saves a training step that freed memory is kept: two kinds of processes in turn.

python benchmarks/malloc.py [channels] [repetitions]
"""

import platform
import resource
import statistics
import subprocess
import sys
import time

import timm
import torch
import torch.nn.functional as F

import dots_zoo
from dots_zoo.runtime.malloc import keep_freed_memory


def steps(channels: int, count: int = 8) -> None:
    """Print the least CPU seconds of a step, and its page faults."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = timm.create_model("cell_cifar", genotype="dots_cifar10", channels=channels, layers=8)
    network.to(memory_format=torch.channels_last).train()
    images = torch.randn(64, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    seconds = []
    for step in range(2 + count):
        if step == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = time.process_time()
        F.cross_entropy(network(images), torch.arange(64) % 10).backward()
        seconds.append(time.process_time() - began)
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / count
    print(min(seconds[2:]), faults)


def main(channels: int, repetitions: int) -> None:
    found: dict[str, list[list[float]]] = {"returned": [], "kept": []}
    for _ in range(repetitions):
        for name, rows in found.items():
            command = [sys.executable, __file__, "one", name, str(channels)]
            words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            rows.append([float(word) for word in words])
    for name, rows in found.items():
        seconds, faults = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"freed memory {name}: {seconds:.3f} s of CPU time and {faults:.0f} page faults a step")
    print(
        f"dots_cifar10 with {channels} channels and 8 cells, batch 64, medians of {repetitions} processes' "
        f"minima, one thread, {platform.machine()}, python {platform.python_version()}, "
        f"torch {torch.__version__}, dots_zoo {dots_zoo.__version__}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        if sys.argv[2] == "kept":
            keep_freed_memory()
        steps(int(sys.argv[3]))
    else:
        numbers = [int(word) for word in sys.argv[1:]]
        main(*(numbers + [16, 5][len(numbers) :]))
