"""What a network of cells costs, ours against the plain one of the public kind (`plain_network.py`).

python benchmarks/discrete.py [--quick] [--json out.json]
python benchmarks/discrete.py --profile

The same weights on the same images, in turn in one process and on one thread, so that what else the machine
does is the same for both; a ratio is ours over plain, of the minima and of the medians, in CPU seconds of the
process. Before anything is timed, the outputs or losses must agree. Where freed memory is kept, it is for
both.

Inference: dots_imagenet at 224x224, one image. Training: one step of dots_cifar10 at 32x32, forward and
backward pass and SGD with momentum.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from plain_network import PlainNetwork
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dots_zoo
from dots_zoo.fuse.fuse import REWRITES, fuse
from dots_zoo.kernels import prepack, replace_with_fast_layers
from dots_zoo.public_weights import load_public_checkpoint
from dots_zoo.runtime.malloc import keep_freed_memory

Run = Callable[[], object]

# batch, drop-path rate, whether freed memory is kept; the third and what follows only without --quick
TRAININGS = ((16, 0.0, False), (16, 0.0, True), (32, 0.0, True), (16, 0.2, True))


def pair(name: str, macro: str, shape: tuple[int, int, int]) -> tuple[nn.Module, nn.Module]:
    """The plain network and ours with its weights; scales, shifts and statistics are drawn.

    shape: channels, layers, classes.
    """
    torch.manual_seed(0)
    ours = timm.create_model(name)
    plain = PlainNetwork(ours.genotype, macro, *shape)
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.2)
        norm.momentum = 1.0  # the statistics of the one batch that follows
    with torch.no_grad():
        plain(torch.randn(8, *ours.pretrained_cfg["input_size"]))
    for norm in norms:
        norm.momentum = 0.1
    load_public_checkpoint(ours, plain.state_dict())
    x = torch.randn(1, *ours.pretrained_cfg["input_size"], dtype=torch.float64)
    with torch.inference_mode():
        outputs = [copy.deepcopy(model).eval().double()(x) for model in (ours, plain)]
    assert_equal("CellNet in float64", *outputs, 1e-9)
    return plain, ours


def last(x: Any) -> Any:
    """A map, or a copy of a network, in the layout channels last."""
    if isinstance(x, Tensor):
        return x.contiguous(memory_format=torch.channels_last)
    return copy.deepcopy(x).to(memory_format=torch.channels_last)


def assert_equal(name: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    error = float((got - expected).abs().max() / expected.abs().max())
    print(f"  {name}: differs from plain by {error:.1e} of the largest")
    assert error < tolerance, f"{name}: differs from the plain network by {error:.1e}"


def inference() -> dict[str, Run]:
    """Forward passes of one image."""
    plain, ours = pair("dots_imagenet", "mobile", (48, 14, 1000))
    plain.eval(), ours.eval()
    x = torch.randn(1, 3, 224, 224)
    models = {"plain": plain, "CellNet": ours, "channels last": last(ours), "fuse": last(fuse(ours))}
    models["all rewrites of fuse"] = last(fuse(ours, tuple(REWRITES)))
    models["prepack"] = last(fuse(ours, tuple(REWRITES)))
    prepack(models["prepack"])
    inputs = {name: x if name in ("plain", "CellNet") else last(x) for name in models}

    @torch.inference_mode()
    def run(name: str) -> Tensor:
        out: Tensor = models[name](inputs[name])
        return out

    for name in models:
        assert_equal(name, run(name), run("plain"), 1e-4)
    return {name: partial(run, name) for name in models}


def training(batch: int, drop_path: float) -> dict[str, Run]:
    """Training steps on a batch; with drop path both draw the same edges of the same samples."""
    plain, ours = pair("dots_cifar10", "cifar", (36, 20, 10))
    plain.drop_path_rate = drop_path
    ours.set_drop_path(drop_path)
    x, labels = torch.randn(batch, 3, 32, 32), torch.arange(batch) % 10
    models = {"plain": plain, "channels last": last(ours), "fast layers": last(ours)}
    replace_with_fast_layers(models["fast layers"])
    inputs = {name: x if name == "plain" else last(x) for name in models}
    losses: dict[str, Tensor] = {}
    runs: dict[str, Run] = {}
    for name, model in models.items():
        optimiser = torch.optim.SGD(model.train().parameters(), 0.025, momentum=0.9, weight_decay=3e-4)

        def run(model: Any = model, x: Tensor = inputs[name], optimiser: Any = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimiser.step()
            return loss.detach()

        torch.manual_seed(1)
        losses[name], runs[name] = run(), run
        assert_equal(name, losses[name], losses["plain"], 1e-3)
    return runs


def measure(runs: dict[str, Run], repetitions: int) -> dict[str, dict[str, float]]:
    """Each in turn, behind one turn that is not counted: seconds, and ratios to the plain one."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if repetition:
                seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    found: dict[str, dict[str, float]] = {}
    for name, pairs in seen.items():
        row = {}
        for clock, column in zip(("wall", "cpu"), zip(*pairs, strict=True), strict=True):
            row |= {f"{clock}_min": min(column), f"{clock}_median": statistics.median(column)}
        found[name] = row
        for figure in tuple(row):
            row[f"{figure}_ratio"] = row[figure] / found["plain"][figure]
        print("  " + "  ".join(f"{key} {value:.3f}" for key, value in row.items() if "cpu" in key), name)
    return found


class Profile(TorchDispatchMode):
    """CPU seconds of every kind of operator."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.process_time()
        out = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        if "convolution" in name:
            weight = args[2 if "backward" in name else 1]
            kind = "1x1" if weight.shape[-1] == 1 else "depthwise" if weight.shape[1] == 1 else "dense"
            name = f"{kind} {name}"
        self.seconds[name] += time.process_time() - began
        return out


def profile() -> None:
    """Where a training step of ours at batch 16 spends its time."""
    keep_freed_memory()
    run = training(16, 0.0)["fast layers"]
    with Profile() as found:
        run(), run()
    total = sum(found.seconds.values())
    for name, seconds in found.seconds.most_common(14):
        print(f"  {seconds / total:5.1%} {name}")


def row(what: str, runs: dict[str, Run], repetitions: int, **setting: Any) -> dict[str, Any]:
    print(what, setting, flush=True)
    return {"what": what, **setting, "repetitions": repetitions, "times": measure(runs, repetitions)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, training at batch 16 only")
    parser.add_argument("--json", help="where the document is written")
    parser.add_argument("--profile", action="store_true", help="operators of a training step, and no more")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.profile:
        return profile()
    rows = [row("inference", inference(), 20 if chosen.quick else 60, batch=1)]
    for batch, rate, keep in TRAININGS[: 2 if chosen.quick else None]:
        if keep:
            keep_freed_memory()  # until the process ends
        runs, count = training(batch, rate), 2 if chosen.quick else 4
        rows.append(row("training", runs, count, batch=batch, drop_path=rate, freed_memory_kept=keep))
    found = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "dots_zoo": dots_zoo.__version__,
        "threads": 1,
        "inference_ratio": rows[0]["times"]["prepack"]["cpu_min_ratio"],
        "training_ratio": rows[2]["times"]["fast layers"]["cpu_min_ratio"],
        "rows": rows,
    }
    print({key: value for key, value in found.items() if key != "rows"})
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
