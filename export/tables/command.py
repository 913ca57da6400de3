"""The command `tables`: the paper's cost tables with our counts and latency, into a folder."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from dots_zoo.options.command_line import CommandLine
from dots_zoo.options.declaration import REQUIRED, Option
from dots_zoo.runtime.atomic_write import check_output, write_files
from dots_zoo.runtime.config import build
from dots_zoo.runtime.errors import DotsZooError

from ..measure.latency import Plan
from ..measure.options import BenchOptions
from ..measure.report import to_html as report_page
from ..measure.schema import dump, read_bench
from .page import to_html, to_markdown
from .tables import tables

FILES = ("tables.json", "tables.md", "tables.html", "bench.json", "report.html")


def command_line() -> CommandLine:
    """Return the options of `dots-zoo command`."""
    line = CommandLine(
        "tables",
        "Write the cost tables of the DOTS paper, our counts and measured latency beside its figures, as "
        "tables.json, tables.md and tables.html, with bench.json and report.html of the measurement.",
        "-o DIR",
        [
            "tables -o runs/tables",
            "tables -o runs/counts --counts-only",
            "tables -o runs/gpu --device cuda --batch 32",
        ],
        main=("only", "counts_only", "device"),
    )
    line.add(Option("out", str, REQUIRED, "folder; it is made where it is missing"))
    line.add(Option("only", str, "*", "networks whose names match, 'dots_*'"))
    line.add(Option("counts_only", bool, False, "export and measure nothing"))
    line.add(Option("exporter", Literal["dynamo", "torchscript"], "torchscript", "how files are made"))
    # Some fifty rows in one run: fewer and shorter turns than those of a benchmark of a few.
    line.add_from(BenchOptions, defaults={"batch": (1,), "iterations": 20, "seconds": 1.0})
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Write the tables as `argv` says; return 1 where the parity or provider check of a row failed."""
    values = command_line().parse(argv)
    plan = None if values["counts_only"] else build(BenchOptions, values).plan()
    return run_tables(Path(values["out"]), plan, values["only"], values["exporter"])


def run_tables(out: Path, plan: Plan | None, only: str, exporter: Literal["dynamo", "torchscript"]) -> int:
    """Write the files and print where; return 1 where a row's parity or provider check failed."""
    with _new_folder(out):
        for name in FILES:
            check_output(out / name)
        document, bench = tables(
            plan, pattern=only, exporter=exporter, progress=lambda line: print(line, flush=True)
        )
        files = {
            "tables.json": json.dumps(document, indent=1).encode(),
            "tables.md": to_markdown(document).encode(),
            "tables.html": to_html(document).encode(),
        }
        if bench is not None:
            files |= {"bench.json": dump(bench), "report.html": report_page([read_bench(bench)]).encode()}
        written = write_files(out, files)
    print("\n".join(f"written: {path}" for path in written))
    if bench is None:
        return 0
    rows = bench["rows"]
    print(f"{sum(bool(row['failures']) for row in rows)} of {len(rows)} rows are refused")
    return int(any(row["failures"].keys() & {"parity", "provider"} for row in rows))


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing; remove what was made, if empty, where the work fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DotsZooError(f"{folder}: cannot be made: {error.strerror}") from error
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):  # somebody else's files are in it by now
                path.rmdir()
        raise
