"""Steps of a search in two checkouts: the same step of each in turn, each in a process of its own.

python benchmarks/two_checkouts.py OLD NEW [--rounds 4] [--steps pair topology settled] [--json out.json]

OLD and NEW are folders of clones with an environment in .venv; each takes the steps of its own
benchmarks/search_turns.py on one thread, and keeps freed memory. A ratio is NEW over OLD, of minima and of
medians of CPU seconds; a step that OLD does not have is compared with its topology step. `first` is the first
step, of two images: with an empty NUMBA_CACHE_DIR it compiles the loops.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def work(root: Path, steps: list[str]) -> None:
    """Take a step for every line that names one, and print its CPU seconds, or null where there is none."""
    sys.path.insert(0, str(root / "benchmarks"))
    import torch
    from search_turns import Setting, step_of, timed, turns, two_images

    torch.set_num_threads(1)
    ready, first = {}, {}
    for step in steps:
        try:
            run = step_of(step, False)
        except KeyError:
            continue
        ours, _ = turns(step, Setting())
        first[step] = timed(run, two_images(ours))[1]
        run(ours)
        ready[step] = run, ours
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        step = line.strip()
        print(json.dumps(timed(*ready[step])[1] if step in ready else None), flush=True)


def start(root: Path, steps: list[str]) -> subprocess.Popen[str]:
    command = [str(root / ".venv/bin/python"), __file__, "--work", str(root), "--steps", *steps]
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def ask(process: subprocess.Popen[str], step: str) -> Any:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{step}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def commit_of(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=4, help="pairs; four times as many of other steps")
    parser.add_argument("--steps", nargs="+", default=["pair", "topology", "settled"])
    parser.add_argument("--json")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work is not None:
        return work(chosen.work, chosen.steps)
    from search_step import machine  # after `work`, which has a search_turns of its own

    processes = [start(root.resolve(), chosen.steps) for root in chosen.checkouts]
    first = [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]
    found: dict[str, Any] = {
        **machine(),
        "threads": 1,
        "commits": [commit_of(root) for root in chosen.checkouts],
        "first": first,
    }
    seconds: dict[str, list[list[float]]] = {}
    for step in chosen.steps:
        count = chosen.rounds * (1 if step == "pair" else 4)
        rows = [[ask(process, step) for process in processes] for _ in range(count)]
        old, new = ([row[k] for row in rows if row[k] is not None] for k in range(2))
        seconds[step] = [old or seconds["topology"][0], new]
        old, new = seconds[step]
        found[step] = {
            "old_min": min(old), "new_min": min(new), "ratio_of_minima": min(new) / min(old),
            "ratio_of_medians": statistics.median(new) / statistics.median(old),
        }  # fmt: skip
        print(step, json.dumps(found[step]), flush=True)
    for process in processes:
        process.communicate()
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
