"""Measure, report and compare: the Python functions, and the commands over them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dots_zoo.options.command_line import CommandLine
from dots_zoo.options.declaration import REQUIRED, Option
from dots_zoo.options.image_size import ImageSize, height_and_width
from dots_zoo.runtime.atomic_write import check_output, write_file

from .compare import Change, changes
from .latency import measure
from .options import BenchOptions, fraction
from .report import write_report
from .rows import Row
from .schema import dump, read_bench
from .timing import Timing

DEFAULTS = BenchOptions()


@dataclass(frozen=True)
class Measured:
    """A benchmark and its file; rows: one for each network in each setting."""

    path: Path
    rows: tuple[Row, ...]

    @property
    def failed(self) -> bool:
        """Return True where a row is not proven, or did not run where it was asked to."""
        return any(row.failures.keys() & {"parity", "provider"} for row in self.rows)


@dataclass(frozen=True)
class Report:
    """A page of measurements: its file, the number of rows, and how many of them it refuses."""

    path: Path
    rows: int
    refused: int


@dataclass(frozen=True)
class Comparison:
    """A new benchmark beside an old one; rows: a change for every timing; over: what is allowed."""

    rows: tuple[Change, ...]
    over: float

    @property
    def failed(self) -> int:
        """The number of timings that became slower than allowed, or have no verdict."""
        return sum(change.fails(self.over) for change in self.rows)


def bench(
    files: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    input: ImageSize | None = None,
    quiet: bool = False,
    **options: Any,
) -> Measured:
    """Measure the latency of ONNX files, all in one interleaved run, and write it as JSON.

    Args:
        files: one or more, m.onnx.
        out: bench.json.
        input: height and width, for files that leave them open.
        quiet: print no progress.
        options: the fields of BenchOptions.

    Raises DotsZooError for what cannot be measured, before anything is timed.
    """
    paths = [Path(file) for file in ([files] if isinstance(files, (str, Path)) else files)]
    plan = replace(DEFAULTS, **options).plan(None if input is None else height_and_width(input))
    check_output(Path(out))
    document = measure(paths, plan, progress=_silent if quiet else _print)
    return Measured(write_file(Path(out), dump(document)), read_bench(document).rows)


def report(benches: str | Path | Sequence[str | Path], *, out: str | Path) -> Report:
    """Render benchmarks as a page; rows that failed a check are refused.

    Args:
        benches: one or more, bench.json.
        out: report.html or report.md.

    Raises DotsZooError for files that are no benchmarks.
    """
    paths = [Path(path) for path in ([benches] if isinstance(benches, (str, Path)) else benches)]
    return Report(*write_report(paths, Path(out)))


def compare(
    old: str | Path, new: str | Path, *, fail_over: str = "5%", any_machine: bool = False
) -> Comparison:
    """Compare two benchmarks.

    Args:
        old: bench.json.
        new: bench.json.
        fail_over: how much slower p50 may become.
        any_machine: compare across different hardware.

    Raises DotsZooError where they cannot be compared.
    """
    over = fraction(fail_over, "fail_over")
    return Comparison(tuple(changes(Path(old), Path(new), any_machine=any_machine)), over)


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [bench_line(), report_line(), compare_line()]


def bench_line() -> CommandLine:
    """Return the options of `dots-zoo bench`."""
    line = CommandLine(
        "bench",
        "Measure the latency of ONNX files, all in one interleaved run.",
        "FILE... -o FILE",
        [
            "bench m.onnx --batch 1 8 -o bench.json",
            "bench m.onnx m_int8.onnx --threads 1 2 --engine onnxruntime torch -o bench.json",
            "bench m.onnx --device cpu cuda --engine onnxruntime tensorrt --cuda-graph -o bench.json",
        ],
        main=("device", "engine", "batch", "threads", "input"),
    )
    line.positional("files", "ONNX files", nargs="+", metavar="FILE")
    line.add(Option("out", str, REQUIRED, "bench.json"))
    line.add(Option("input", ImageSize | None, None, "height and width, for files that leave them open"))
    line.add(Option("quiet", bool, False, "print no progress"))
    line.add_from(BenchOptions)
    return line


def bench_main(argv: Sequence[str]) -> int:
    """Measure as `argv` says and print a line for every row; return 1 where a check failed."""
    values = bench_line().parse(argv)
    measured = bench(**values)
    print("\n".join(text for row in measured.rows for text in row_lines(row)))
    print(f"written: {measured.path}; next: dots-zoo report {measured.path} -o report.html")
    return int(measured.failed)


def row_lines(row: Row) -> list[str]:
    """Return the lines of a row for a terminal: its times, warnings, and why it is refused."""
    engine = " ".join([row.engine, *(["+ CUDA graph"] if row.cuda_graph else [])])
    where = f"{row.provider_asked}, {row.threads} thread{'' if row.threads == 1 else 's'}"
    lines = [
        f"{row.model} {row.precision} batch {row.batch}, {engine}, {where}: {_times(row.resident)}; "
        f"end-to-end {_times(row.end_to_end)}"
    ]
    for name, timing in (("device-resident", row.resident), ("end-to-end", row.end_to_end)):
        if timing.noisy:
            lines.append(f"  warning: {name}: the standard deviation is {timing.cv:.1%} of the mean")
    return lines + [f"  refused: {check}: {why}" for check, why in row.failures.items()]


def _times(timing: Timing) -> str:
    return f"p50 {timing.p50_ms:.3f} ms, p95 {timing.p95_ms:.3f} ms, {timing.throughput_per_s:.1f} images/s"


def report_line() -> CommandLine:
    """Return the options of `dots-zoo report`."""
    line = CommandLine(
        "report",
        "Render benchmarks as a page; rows that failed a check are refused.",
        "BENCH... -o FILE",
        ["report bench.json -o report.html", "report cpu.json gpu.json -o report.md"],
    )
    line.positional("benches", "bench.json", nargs="+", metavar="BENCH")
    line.add_from(report)
    return line


def report_main(argv: Sequence[str]) -> int:
    """Write a page as `argv` says, and say what it leaves out."""
    values = report_line().parse(argv)
    done = report(**values)
    if done.refused:
        print(f"{done.refused} of {done.rows} rows are refused; the page says why")
    print(f"written: {done.path}")
    return 0


def compare_line() -> CommandLine:
    """Return the options of `dots-zoo compare`."""
    line = CommandLine(
        "compare",
        "Compare two benchmarks; exit code 1 where a row became slower by more than is allowed, is missing "
        "in the new one or was refused, 2 where they cannot be compared.",
        "OLD NEW",
        ["compare old.json new.json --fail-over 5%"],
    )
    line.positional("old", "bench.json")
    line.positional("new", "bench.json")
    line.add_from(compare)
    return line


def compare_main(argv: Sequence[str]) -> int:
    """Print a line for every timing; return 1 where one fails."""
    values = compare_line().parse(argv)
    comparison = compare(**values)
    print("\n".join(change.line(comparison.over) for change in comparison.rows))
    print(f"{comparison.failed} of {len(comparison.rows)} fail at {values['fail_over']} over the old p50")
    return int(comparison.failed > 0)


def _print(text: str) -> None:
    print(text, flush=True)


def _silent(text: str) -> None:
    """Print nothing."""
