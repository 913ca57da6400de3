"""What a step of a search costs, ours against the plain formulation of the public kind (`plain_supernet.py`).

python benchmarks/search_step.py [--quick] [--json out.json] [--plot out.png] [--repetitions 3]
python benchmarks/search_step.py --profile pair      what a step of ours consists of

Both take the same steps on the same images in turn, in one process, so that what else the machine does is
the same for both; a ratio is that of the minima, in CPU seconds of the process. A pair is the step of the
logits and that of the weights, optimisers included; the plain one computes all gradients in both. Peak
memory is that of a process of its own, over what it holds behind a step of one image, which has made the
kernels that any step needs. `topology` is a step in which both operations of an edge have weight, `settled`
one in which a single one has; neither side computes what has none. Before anything is timed the two must
agree on the loss.
"""

import argparse
import cProfile
import json
import pstats
import statistics
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from typing import Any

import torch
from search_turns import (
    Setting,
    assert_same_loss,
    in_processes,
    peak_of_this_process,
    step_of,
    timed,
    turns,
    two_images,
)
from torch.utils._python_dispatch import TorchDispatchMode

from dots_zoo.data.augment import Augmentation
from dots_zoo.export.measure import machine as bench_machine
from dots_zoo.runtime.malloc import keep_freed_memory
from dots_zoo.search.stages.steps import classify


def compare(step: str, setting: Setting, repetitions: int) -> dict[str, Any]:
    """Times of both in turn, behind a step of two images of each, which makes kernels and moments."""
    torch.set_num_threads(setting.threads)
    ours, plain = turns(step, setting)
    assert_same_loss(ours, plain)
    both = [
        (name, step_of(step, name == "plain"), context)
        for name, context in (("plain", plain), ("ours", ours))
    ]
    for _, run, context in both:
        run(two_images(context))
    seen: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    for _ in range(repetitions):
        for name, run, context in both:
            seen[name].append(timed(run, context))
    found: dict[str, Any] = {"step": step, **vars(setting)}
    for name, figures in seen.items():
        for kind, column in zip(("wall", "cpu"), zip(*figures, strict=True), strict=True):
            found[f"{name}_{kind}_min"] = min(column)
            found[f"{name}_{kind}_median"] = statistics.median(column)
    for kind in ("wall", "cpu"):
        found[f"{kind}_ratio"] = found[f"plain_{kind}_min"] / found[f"ours_{kind}_min"]
    return found


class Calls(TorchDispatchMode):
    """Counts the operators that are called; `detach` is the counting's own. Compiled loops are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "detach" not in str(func)
        return func(*args, **(kwargs or {}))


def operator_calls() -> dict[str, int]:
    """Of one forward and backward pass of the operation search, all gradients; whatever the batch."""
    found = {}
    for name, context in zip(("ours", "plain"), turns("pair", Setting(batch=2)), strict=True):
        with Calls() as calls:
            classify(context, context.batch, context.mixture())[0].backward()
        found[name] = calls.count
    return found


def peaks() -> dict[str, dict[str, int]]:
    """Peak bytes of the plain one and of every memory option of ours."""
    found: dict[str, dict[str, int]] = {"pair": {}, "topology": {}}
    kinds = [(step, memory) for step in found for memory in ("plain", "fast", "lean", "checkpoint")]
    # A step of ours computes the gradients that it uses, which is those of the weights alone in a pair.
    rows = [(step, memory, step == "pair" and memory != "plain") for step, memory in kinds]
    for (step, memory), peak in zip(kinds, in_processes(peak_of_this_process, rows), strict=True):
        found[step][memory] = peak
    return found


def data_share(setting: Setting, repetitions: int, pair: float) -> float:
    """Of the CPU seconds of a pair, those of its two augmented batches, out of 2,000 images in memory."""
    ours, _ = turns("pair", setting)
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2000, 3, 32, 32), generator=draws).to(torch.uint8)
    data, options = replace(ours.run.data, images=images), Augmentation()
    seconds = []
    for _ in range(repetitions):
        began = time.process_time()
        for _ in range(2):
            data.train_batch(torch.randint(2000, (setting.batch,), generator=draws), options, draws)
        seconds.append(time.process_time() - began)
    return min(seconds) / pair


def profile(step: str) -> None:
    """Where the time of a step of ours goes: functions by the time that is their own, by cProfile."""
    torch.set_num_threads(1)
    keep_freed_memory()
    context, run = turns(step, Setting())[0], step_of(step, False)
    run(context)
    seen = cProfile.Profile()
    seen.runcall(run, context)
    pstats.Stats(seen).strip_dirs().sort_stats("tottime").print_stats(16)


def machine() -> dict[str, Any]:
    """The date, the machine and the versions of a measurement."""
    return {
        "date": date.today().isoformat(),
        "machine": bench_machine.machine(),
        "versions": {**bench_machine.versions(), "numba": version("numba")},
    }


def settings(quick: bool) -> list[tuple[str, Setting]]:
    """One axis at a time."""
    if quick:
        return [(step, Setting()) for step in ("pair", "topology", "settled")]
    varied = [
        Setting(),
        *(Setting(batch=batch) for batch in (16, 64)),
        *(Setting(cells=cells) for cells in (14, 20)),
        Setting(threads=2),
        *(Setting(channels=channels) for channels in (4, 8, 32)),
        *(Setting(memory=memory) for memory in ("lean", "checkpoint")),
    ]
    rows = [(step, setting) for step in ("pair", "topology") for setting in varied]
    return rows + [(step, Setting()) for step in ("settled", "second order", "dropnas")]


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Seconds of a pair against the number of cells and the batch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("cells", "batch"), strict=True):
        base = vars(Setting())
        same = [
            row for row in rows
            if row["step"] == "pair" and all(row[k] == v for k, v in base.items() if k != key)
        ]  # fmt: skip
        same.sort(key=lambda row: row[key])
        for name in ("plain", "ours"):
            axes.plot([row[key] for row in same], [row[f"{name}_cpu_min"] for row in same], "o-", label=name)
        axes.set(xlabel=key, ylabel="CPU seconds a pair of steps", ylim=(0, None))
        axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--profile", choices=("pair", "topology", "settled", "second order", "dropnas"))
    chosen = parser.parse_args()
    if chosen.profile:
        profile(chosen.profile)
        return
    memory = peaks()
    keep_freed_memory()
    rows = []
    for step, setting in settings(chosen.quick):
        rows.append(compare(step, setting, chosen.repetitions))
        print(json.dumps(rows[-1]), flush=True)
    found = {
        **machine(),
        "pair_ratio": rows[0]["cpu_ratio"],
        "topology_ratio": next(row for row in rows if row["step"] == "topology")["cpu_ratio"],
        "settled_ratio": next(row for row in rows if row["step"] == "settled")["cpu_ratio"],
        "memory_ratio": memory["pair"]["fast"] / memory["pair"]["plain"],
        "topology_memory_ratio": memory["topology"]["fast"] / memory["topology"]["plain"],
        "operator_calls": operator_calls(),
        "data_share": data_share(Setting(), 20, rows[0]["ours_cpu_min"]),
        "peak_bytes": memory,
        "rows": rows,
    }
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}, indent=2))
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(found, file, indent=2)
    if chosen.plot:
        plot(rows, chosen.plot)


if __name__ == "__main__":
    main()
