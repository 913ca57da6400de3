"""The command `tables`: the paper's cost tables with our counts and latency, into a folder."""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dots_zoo.runtime.atomic_write import check_output, write_files
from dots_zoo.runtime.errors import DotsZooError

from ..bench.latency import Plan
from ..bench.options import add_plan, command_parser, plan_of
from ..bench.report import to_html as report_page
from ..bench.schema import dump, read_bench
from .page import to_html, to_markdown
from .tables import tables

FILES = ("tables.json", "tables.md", "tables.html", "bench.json", "report.html")

# Some fifty rows in one run: fewer and shorter turns than those of a benchmark of a few.
QUICK = Plan(batches=(1,), min_iterations=20, min_seconds=1.0)

EXAMPLES = """\
examples:
  dots-zoo tables --out runs/tables                    all of it: some minutes
  dots-zoo tables --out runs/counts --counts-only      seconds, no export
  dots-zoo tables --out runs/gpu --provider cuda --batch 32"""


def main(argv: Sequence[str]) -> int:
    """Write the tables as `argv` says; return 1 where the parity or provider check of a row failed."""
    return run_tables(_parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "tables",
        "Write the cost tables of the DOTS paper, our counts and measured latency beside its figures, as "
        "tables.json, tables.md and tables.html, with bench.json and report.html of the measurement.",
        EXAMPLES,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder; it is made where it is missing")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks whose names match, 'dots_*'")
    parser.add_argument("--counts-only", action="store_true", help="export and measure nothing")
    parser.add_argument("--exporter", choices=("dynamo", "torchscript"), default="torchscript")
    add_plan(parser, QUICK)
    return parser


def run_tables(args: argparse.Namespace) -> int:
    """Write the files and print where; return 1 where a row's parity or provider check failed."""
    plan = None if args.counts_only else plan_of(args)
    out: Path = args.out
    with _new_folder(out):
        for name in FILES:
            check_output(out / name)
        document, bench = tables(
            plan, pattern=args.only, exporter=args.exporter, progress=lambda line: print(line, flush=True)
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
