"""What each part of the fast path of a search gives: steps of ours in turn with steps that do without one.

python benchmarks/ablation.py [--json out.json] [--repetitions 5] [--memory fast]

A ratio is what a step needs without the part over what it needs with all of them: minima of CPU seconds of
the process, and peak memory, each of a process of its own. docs/fast_search.md explains the parts in this
order. All compute the same: before anything is timed, the loss without a part must be that of the whole.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from search_step import machine
from search_turns import Setting, in_processes, peak_of_this_process, step_of, timed, turns
from torch import Tensor

from dots_zoo.kernels import batch_norm, sep_conv_block
from dots_zoo.kernels.pooling import max_pool_reference
from dots_zoo.kernels.weighted_sum import weighted_sum_reference
from dots_zoo.runtime.malloc import keep_freed_memory
from dots_zoo.search.stages.steps import classify
from dots_zoo.search.supernet import fast_cell
from dots_zoo.search.supernet.mixed_op import SharedInputs

Patch = Callable[[], Any]


ADD_CANDIDATES: Any = fast_cell.FastCell._add_candidates


def unshared(cell: Any, node: Any, nodes: Any, edge: int, inputs: Any, *rest: Any) -> None:
    """`FastCell._add_candidates`, where every edge computes for itself what it reads."""
    shared = SharedInputs(inputs.shared.x, inputs.shared.pools)
    ADD_CANDIDATES(cell, node, nodes, edge, fast_cell.FastInputs(shared), *rest)


def by_modules(members: Sequence[Any], weights: Tensor, maps: Sequence[Tensor], _: bool) -> Tensor:
    """`sep_conv_sum`, an operation at a time, but with the norm that is fast behind a concatenation."""
    terms, ones = [], maps[0].new_ones(maps[0].shape[1])
    for blocks, weight, x in zip(members, weights, maps, strict=True):
        for block in blocks:
            x = batch_norm(block.pointwise(block.depthwise(F.relu(x))), block.norm, ones)
        terms.append(weight * x)
    return sum(terms)


def even_odd_by_index(x: Tensor) -> tuple[Tensor, Tensor]:
    """`even_odd_pixels` by an index, whose gradient is not channels last."""
    even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
    return even, F.pad(odd, [0, even.shape[3] - odd.shape[3], 0, even.shape[2] - odd.shape[2]])


def not_simd(block: sep_conv_block.Block) -> bool:
    return False


def without(*changes: tuple[Any, str, Any]) -> Patch:
    """A context in which attributes are others."""

    @contextmanager
    def changed() -> Iterator[None]:
        with ExitStack() as stack:
            for change in changes:
                stack.enter_context(patch.object(*change))
            yield

    return changed


UNREAD = "no gradient that nobody reads"  # of a pair: what is without it is the plain step

PARTS: dict[str, Patch] = {
    "all": without(),
    "shared by the edges that leave a node": without((fast_cell.FastCell, "_add_candidates", unshared)),
    "separable convolutions by hand, the weight their scale": without(
        (fast_cell, "sep_conv_sum", by_modules)
    ),
    "loops of 16 channels": without((sep_conv_block.Block, "is_simd", property(not_simd))),
    "the weighted sum of other maps": without((fast_cell, "weighted_sum", weighted_sum_reference)),
    "max pooling without indices": without((fast_cell, "max_pool_3x3", max_pool_reference)),
    "every other pixel, channels last": without((fast_cell, "even_odd_pixels", even_odd_by_index)),
    UNREAD: without(),
}


def peak_without(step: str, memory: str, name: str) -> int:
    with PARTS[name]():
        return peak_of_this_process(step, memory, alone=step == "pair" and name != UNREAD)


def measure(step: str, memory: str, names: Sequence[str], repetitions: int) -> list[float]:
    """Least CPU seconds of a step without each part."""
    runs, losses = {}, {}
    for name in names:
        with PARTS[name]():
            context = turns(step, Setting(memory=memory))[0]
            runs[name] = partial(timed, step_of(step, name == UNREAD), context)
            losses[name] = classify(context, context.batch, context.mixture())[0].item()
        assert abs(losses[name] - losses["all"]) < 1e-3, f"{name}: {losses}"
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repetitions + 1):
        for name, run in runs.items():
            with PARTS[name]():
                seen[name].append(run()[1])
    return [min(seconds[1:]) for seconds in seen.values()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory", choices=("fast", "lean", "checkpoint"), default="fast")
    chosen = parser.parse_args()
    parts = {"pair": list(PARTS), "topology": [name for name in PARTS if name != UNREAD]}
    peaks = {
        step: in_processes(peak_without, [(step, chosen.memory, name) for name in names])
        for step, names in parts.items()
    }
    torch.set_num_threads(1)
    keep_freed_memory()
    found: dict[str, Any] = machine()
    for step, names in parts.items():
        figures = zip(
            names, measure(step, chosen.memory, names, chosen.repetitions), peaks[step], strict=True
        )
        found[step] = {name: {"cpu": cpu, "peak_bytes": peak} for name, cpu, peak in figures}
        for name, row in found[step].items():
            for key, ratio in (("cpu", "ratio"), ("peak_bytes", "peak_ratio")):
                row[ratio] = row[key] / found[step]["all"][key]
            print(
                f"{step:9} time {row['ratio']:6.3f} memory {row['peak_ratio']:6.3f} without {name}",
                flush=True,
            )
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
