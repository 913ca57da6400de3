"""Run the tests of this folder, none skipped, and write what passed, with the date and the versions.

python tests/clients/record.py docs/clients.json
"""

import datetime
import importlib.metadata
import json
import platform
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "timm", "dots-zoo")


class Outcomes:
    """A plugin that counts the tests of each file by outcome."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.missing: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._add(report.nodeid, report.outcome)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self._add(report.nodeid, report.outcome)

    def _add(self, place: str, outcome: str) -> None:
        file = re.sub(r"^.*test_|\.py.*$", "", place.partition("::")[0])
        self.counts.setdefault(file, Counter())[outcome] += 1
        if outcome == "skipped":
            self.missing.append(place)


def versions() -> dict[str, str]:
    """Return the versions of the clients and of what they meet."""
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    names = [re.split("[><=]", line)[0] for line in lines if line and not line.startswith("#")]
    return {name: importlib.metadata.version(name) for name in sorted({*PACKAGES, *names} - {"pytest"})}


def main(target: Path) -> int:
    """Return 0 and write `target` where every test passed."""
    outcomes = Outcomes()
    status = int(pytest.main([str(FOLDER), "-m", "", "-p", "no:xdist"], plugins=[outcomes]))
    if outcomes.missing:
        print(f"skipped, and none may be: {', '.join(outcomes.missing)}", file=sys.stderr)
        return 1
    if status == 0:
        document: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "command": "make clients",
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "versions": versions(),
            "passed": {file: count["passed"] for file, count in sorted(outcomes.counts.items())},
        }
        target.write_text(json.dumps(document, indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
