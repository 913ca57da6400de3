"""What kernels save of a step, for every 10^9 MACs: `SAVED_SECONDS` of search/run/choose_kernels.py.

python benchmarks/saved_seconds.py [--repetitions 3]

CPU seconds on one thread, least of the repetitions, batch 32, 8 cells, of the same step with kernels and
without. MACs are those of a forward pass.
"""

import argparse
from dataclasses import replace

import torch
from search_step import machine
from search_turns import Setting, step_of, timed, turns

from dots_zoo.macs import count
from dots_zoo.runtime.malloc import keep_freed_memory
from dots_zoo.search.run.choose_kernels import _Mixed
from dots_zoo.search.stages.init_stage import restart_sgd
from dots_zoo.search.supernet import without_kernels


def compare(step: str, channels: int, repetitions: int) -> tuple[float, float, int]:
    """Seconds of a step with kernels and without, and the MACs of a forward pass."""
    fast, run = turns(step, Setting(channels=channels))[0], step_of(step, False)
    plain = replace(fast.search, supernet=without_kernels(fast.search.supernet))
    slow, seconds = replace(fast, search=restart_sgd(plain)), []
    for turn in (fast, slow):
        run(turn)
        seconds.append(min(timed(run, turn)[1] for _ in range(repetitions)))
    with torch.no_grad():
        mixed = _Mixed(plain.supernet, slow.mixture())
    return seconds[0], seconds[1], count(mixed, (3, 32, 32), 32).macs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(machine())
    for channels in (4, 16):
        for step in ("pair", "topology", "settled"):
            on, off, macs = compare(step, channels, chosen.repetitions)
            per = (off - on) / macs * 1e9
            print(
                f"{channels} channels, {step}: {off:.3f} and {on:.3f} s, {per:.2f} for 10^9 MACs", flush=True
            )


if __name__ == "__main__":
    main()
