"""Kills searches at random moments and lets them go on: each has to end as one that was never killed.

python tests/soak.py [kills] [seed]    100 kills over every method unless told otherwise
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dots_zoo.genotype import load_genotype
from dots_zoo.search.run.run import run_search
from helpers.short_searches import DARTS, SHORT, SKIPS, configuration, derivation, illegal
from helpers.toy_search import toy_data

Case = tuple[str, str, str]  # of the matrix: method, topology search, selection


def cases() -> list[Case]:
    """Every method by itself and before a topology search, and decisions by perturbation."""
    found = [(name, topology, "magnitude") for name in SHORT for topology in ("none", "pairs")]
    found += [("darts", "none", "perturbation"), ("fixed_alpha", "pairs", "perturbation")]
    return [case for case in found if not illegal(*case)]


def begin(case: Case, out: Path, resume: bool = False) -> int:
    """Search in a process of its own, which keeps every step."""
    pid = os.fork()
    if pid:
        return pid
    try:
        name, topology, selection = case
        method, config, space = SHORT[name][0], configuration(name), SKIPS if name == "dots v1" else DARTS
        plan = derivation(topology, selection)
        with open(os.devnull, "w") as sys.stdout:
            run_search(method, config, plan, space, toy_data(16), out,
                   resume=resume, checkpoint_seconds=0, progress=False)  # fmt: skip
        os._exit(0)
    except BaseException as error:
        print(f"{case}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def end(pid: int) -> bool:
    """Whether it ended by itself; raises where it failed."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert os.waitstatus_to_exitcode(status) == 0, "the search failed"
    return True


def outcome(out: Path) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """Cells, log without times, and every tensor of the last checkpoint."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    log = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return load_genotype(out / "genotype.json").cells, log, load_file(max((out / "checkpoint").iterdir()))


def same(left: Any, right: Any) -> bool:
    """Bit by bit."""
    tensors, others = left[2], right[2]
    return bool(
        left[:2] == right[:2]
        and tensors.keys() == others.keys()
        and all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    )


def soak(case: Case, kills: int, draws: random.Random, folder: Path) -> None:
    """One search that is left alone, and one that is killed so often."""
    began = time.monotonic()
    assert end(begin(case, folder / "whole"))
    duration = time.monotonic() - began
    out = folder / "killed"
    for killed in range(kills):
        pid = begin(case, out, resume=killed > 0)
        time.sleep(draws.uniform(0, duration / (1 + killed)))
        os.kill(pid, signal.SIGKILL)
        end(pid)
    assert end(begin(case, out, resume=True))
    assert same(outcome(folder / "whole"), outcome(out)), f"{case}: killed {kills} times, it ends otherwise"


def main(kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    draws = random.Random(seed)
    chosen = draws.sample(cases(), min(kills, len(cases())))
    for number, case in enumerate(chosen):
        times = kills // len(chosen) + (number < kills % len(chosen))
        with tempfile.TemporaryDirectory() as folder:
            soak(case, times, draws, Path(folder))
        print(f"{', '.join(case)}: killed {times} times, ended with the same bits", flush=True)
    print(f"{kills} kills over {len(chosen)} searches, seed {seed}: all ended with the same bits")


if __name__ == "__main__":
    main(*([int(word) for word in sys.argv[1:]] + [100, 0][len(sys.argv) - 1 :]))
