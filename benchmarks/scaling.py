"""What a step of a search costs as cells, channels, batch and images grow.

python benchmarks/scaling.py out.json [--repetitions 2]

One axis at a time, away from a small search in the space S0 on one thread of the CPU. Every setting runs in a
process of its own: its first pair of steps (logits, then weights, optimisers included) gives the peak of
memory over what was held before it, the next ones the CPU seconds, of which the least counts. `values_sent`
is what several processes average in a pair: gradients, running statistics, losses and accuracies.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator

import dots_zoo
from dots_zoo.data.datasets import ImageData
from dots_zoo.runtime.atomic_write import write_file
from dots_zoo.search.methods.darts import DartsConfig
from dots_zoo.search.space.named import named_space
from dots_zoo.search.stages.config import TrainingConfig
from dots_zoo.search.stages.init_stage import fresh
from dots_zoo.search.stages.loop import run_of
from dots_zoo.search.stages.operation_search import operation_choices, softmax_relaxation
from dots_zoo.search.stages.stage import Batch, Search, StepContext, StepIndex
from dots_zoo.search.stages.steps import bilevel


@dataclass(frozen=True)
class Setting:
    """What is varied; image is the side in pixels."""

    cells: int = 8
    channels: int = 8
    batch: int = 16
    image: int = 16


AXES = {"cells": (5, 8, 14), "channels": (4, 8, 16), "batch": (8, 16, 32), "image": (8, 16, 32)}


def context(setting: Setting) -> StepContext:
    """The first pair of steps of a search on random images."""
    draws = torch.Generator().manual_seed(0)
    training = TrainingConfig(batch_size=setting.batch, kernels="on")
    pixels = torch.zeros(1, 3, setting.image, setting.image, dtype=torch.uint8)
    labels = torch.zeros(1, dtype=torch.int64)
    data = ImageData("random", pixels, labels, pixels, labels, 10, (0.5,) * 3, (0.25,) * 3, False, {})
    Accelerator(cpu=True)  # the device of the run, too
    run = run_of(training, data)
    space = named_space("S0")
    config = DartsConfig(channels=setting.channels, training=training)
    begin = fresh("benchmark", config, setting.cells, lambda before: space, operation_choices)
    search = begin(run, None, StepIndex(0, 0))

    def batch() -> Batch:
        images = torch.randn(setting.batch, 3, setting.image, setting.image, generator=draws)
        return images.contiguous(memory_format=torch.channels_last), torch.arange(setting.batch) % 10

    return StepContext(run, search, softmax_relaxation(search), StepIndex(0, 0), batch(), batch())


def values_sent(search: Search) -> int:
    """By both steps of a pair, see `steps.backward`."""
    statistics = sum(b.numel() for b in search.supernet.buffers() if b.is_floating_point())
    weights = sum(weight.numel() for weight in search.supernet.parameters())
    return weights + sum(logits.numel() for logits in search.logits.values()) + 2 * (statistics + 2)


def peak() -> int:
    """Bytes this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(setting: Setting, repetitions: int) -> dict[str, Any]:
    """In the process that calls it."""
    torch.set_num_threads(1)
    pair = context(setting)
    held = peak()
    bilevel(pair)
    peaked, seconds = peak() - held, []
    for _ in range(repetitions):
        began = time.process_time()
        bilevel(pair)
        seconds.append(time.process_time() - began)
    found = {"peak_bytes": peaked, "cpu_seconds": min(seconds), "values_sent": values_sent(pair.search)}
    return {**asdict(setting), **found}


def settings() -> list[Setting]:
    """The small search first, then one axis after the other."""
    varied = [replace(Setting(), **{axis: value}) for axis, values in AXES.items() for value in values]
    return list(dict.fromkeys([Setting(), *varied]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", help="where the figures go")
    parser.add_argument("--repetitions", type=int, default=2)
    chosen = parser.parse_args()
    rows = []
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for setting in settings():
            rows.append(pool.apply(measure, (setting, chosen.repetitions)))
            print(json.dumps(rows[-1]), flush=True)
    found = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dots_zoo": dots_zoo.__version__,
        "threads": 1,
        "repetitions": chosen.repetitions,
        "rows": rows,
    }
    write_file(chosen.json, json.dumps(found, indent=2).encode())


if __name__ == "__main__":
    main()
