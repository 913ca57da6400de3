"""What a start costs: `dots-zoo --help`, `--version`, a typo, `import dots_zoo`, and `import timm` beside it.

python benchmarks/import_time.py [--repetitions 5] [--json docs/import_time.json]

CPU seconds, user and system, of fresh processes, interleaved, medians; prints JSON. A first round, which
reads the files from the disk, does not count.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from search_step import machine

COMMAND = str(Path(sys.executable).with_name("dots-zoo"))
STARTS = {
    "dots-zoo --help": [COMMAND, "--help"],
    "dots-zoo --version": [COMMAND, "--version"],
    "dots-zoo trian": [COMMAND, "trian"],
    "import dots_zoo": [sys.executable, "-c", "import dots_zoo"],
    "import timm": [sys.executable, "-c", "import timm"],
    "python": [sys.executable, "-c", "pass"],
}


def children() -> float:
    """CPU seconds of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds(words: list[str]) -> float:
    """CPU seconds of a process; the typo ends with 2, the others with 0."""
    before = children()
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode != (2 if words[-1] == "trian" else 0):
        raise SystemExit(f"{' '.join(words)} ended with {ended.returncode}: {ended.stderr}")
    return children() - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write too")
    chosen = parser.parse_args()
    rounds = [{name: seconds(words) for name, words in STARTS.items()} for _ in range(chosen.repetitions + 1)]
    medians = {name: round(statistics.median(row[name] for row in rounds[1:]), 3) for name in STARTS}
    document: dict[str, Any] = {**machine(), "repetitions": chosen.repetitions, "cpu_seconds": medians}
    text = json.dumps(document, indent=1)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
