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
from torch import Tensor, nn

from dots_zoo.kernels import batch_norm as quick_norm
from dots_zoo.kernels import depthwise
from dots_zoo.kernels import depthwise_backward as depthwise_gradient
from dots_zoo.kernels import norm_ops as passes
from dots_zoo.kernels import per_channel as channel_numbers
from dots_zoo.kernels import sep_conv as half_passes
from dots_zoo.kernels.malloc import keep_freed_memory
from dots_zoo.kernels.simd import WIDE
from dots_zoo.search import candidates, mixed
from dots_zoo.search.stages.steps import classify
from dots_zoo.search.supernet import max_pool as pooling
from dots_zoo.search.supernet import sep_conv_sum as separable_sum
from dots_zoo.search.supernet.factorized_reduce import halves

Patch = Callable[[], Any]


def source_for_every_edge(nodes: Any, states: list[Tensor], rows: Any, mixture: Any) -> list[Tensor]:
    """`Nodes.forward`, where every edge computes for itself what it reads."""
    for incoming in nodes.incoming:
        node = mixed.Summands(nodes.lean, rows.together)
        for number, source in incoming:
            edge = nodes.edges[number]
            row = rows.edges[number]
            reads = edge.read(row.active, mixture.auxiliary != 0)
            edge(nodes.sources[source](nodes._through(states[source]), reads), row, mixture, node)
        total = node.total()
        states = [*states, nodes._nothing(states, incoming) if total is None else total]
    return states


class Halving(nn.Module):
    def forward(self, relu: Tensor) -> Tensor:
        return torch.cat(halves(relu), dim=1)


def unshared_candidate(build: Any, name: str, channels: int, stride: int) -> tuple[str, nn.Module]:
    """`candidate`, where the layers that halve the resolution take out their pixels themselves."""
    with patch.object(candidates, "skips_odd", lambda conv: False):
        read, module = build(name, channels, stride)
    if read == "halves":
        return "relu", candidates.Normed(nn.Sequential(Halving(), module.body), module.norm)
    return read, module


def by_modules(members: Sequence[Any], weights: Tensor, maps: Sequence[Tensor], _: bool) -> Tensor:
    """`sum_of_separable`, an operation at a time, but with the norm that is fast behind a concatenation."""
    terms, ones = [], maps[0].new_ones(maps[0].shape[1])
    for one, weight, x in zip(members, weights, maps, strict=True):
        for half in one.parts:
            x = quick_norm.normalise(half.pointwise(half.depthwise(F.relu(x))), half.norm, ones)
        terms.append(weight * x)
    return sum(terms)


def sum_of_products(weights: Tensor | None, maps: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    factors = () if weights is None else weights.unbind()
    return sum([w * y for w, y in zip(factors, maps, strict=True)] + list(others))


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
    "shared by the edges that leave a node": without((mixed.Nodes, "forward", source_for_every_edge)),
    "every other pixel taken out once": without(
        (mixed, "candidate", partial(unshared_candidate, candidates.candidate))
    ),
    "separable convolutions by hand, the weight their scale": without(
        (mixed, "sum_of_separable", by_modules)
    ),
    "one pass over memory: compiled loops": without(
        *((module, "has_loops", lambda x: False) for module in (channel_numbers, passes)),
        (half_passes, "has_loop", lambda x, taps: False),
    ),
    "the backward pass of a half in one loop": without((half_passes, "tiles", lambda x, matrix: False)),
    "tiles as this processor has registers": without(
        *((module, "TILES", ((0,) * (4 if WIDE else 8), (0,))) for module in (passes, half_passes)),
        (depthwise_gradient, "WIDE", not WIDE),
    ),
    "four separable convolutions together": without((separable_sum, "GROUP", 1)),
    "a node's sum in one pass": without((mixed, "weighted_sum", sum_of_products)),
    "max pooling without indices": without((pooling, "has_loops", lambda x: False)),
    "depthwise convolutions of our own": without((depthwise, "COMPILES", False)),
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
            turn = turns(step, Setting(memory=memory))[0]
            runs[name] = partial(timed, step_of(step, name == UNREAD), turn)
            losses[name] = classify(turn, turn.batch, turn.mixture())[0].item()
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
