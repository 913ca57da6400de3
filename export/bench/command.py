"""The commands `bench`, `report` and `compare`: options in, files and lines out."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dots_zoo.options.image_size import image_size
from dots_zoo.runtime.atomic_write import check_output, write_file

from .compare import compare
from .latency import Plan, bench
from .options import add_plan, command_parser, fraction, plan_of
from .report import write_report
from .rows import Row
from .schema import dump, read_bench
from .timing import Timing

EXAMPLES = """\
examples:
  dots-zoo bench m.onnx --provider cpu --batch 1 8 -o bench.json
  dots-zoo bench m.onnx m_int8.onnx other.onnx --threads 1 2 --torch eager -o bench.json
  dots-zoo bench m.onnx --provider cpu cuda tensorrt --batch 1 32 --cuda-graph --engine-cache trt -o b.json"""


def bench_main(argv: Sequence[str]) -> int:
    """Measure as `argv` says; return 1 where a check failed."""
    return run_bench(_bench_parser().parse_args(argv))


def report_main(argv: Sequence[str]) -> int:
    """Write a page as `argv` says."""
    return run_report(_report_parser().parse_args(argv))


def compare_main(argv: Sequence[str]) -> int:
    """Compare as `argv` says; return 1 where a network became slower."""
    return run_compare(_compare_parser().parse_args(argv))


def _bench_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "bench", "Measure the latency of ONNX files, all in one interleaved run.", EXAMPLES
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="m.onnx")
    parser.add_argument("-o", "--output", type=Path, required=True, help="bench.json")
    parser.add_argument("--input", metavar="HxW", help="image size, for files that leave it open")
    parser.add_argument(
        "--torch",
        nargs="+",
        choices=("eager", "compiled"),
        default=[],
        help="rows of the networks in PyTorch",
    )
    add_plan(parser, Plan())
    return parser


def run_bench(args: argparse.Namespace) -> int:
    """Measure, write the JSON and print a line for every row."""
    size = image_size(args.input) if args.input else None
    plan = plan_of(args, torch=tuple(args.torch), input_size=size)
    check_output(args.output)
    document = bench(args.files, plan, progress=lambda line: print(line, flush=True))
    write_file(args.output, dump(document))
    rows = read_bench(document).rows
    print("\n".join(line for row in rows for line in row_lines(row)))
    print(f"written: {args.output}")
    return int(any(row.failures.keys() & {"parity", "provider"} for row in rows))


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


def _report_parser() -> argparse.ArgumentParser:
    parser = command_parser("report", "Render benchmarks as a page; rows that failed a check are refused.")
    parser.add_argument("benches", nargs="+", type=Path, metavar="bench.json")
    parser.add_argument("-o", "--output", type=Path, required=True, help="report.html or report.md")
    return parser


def run_report(args: argparse.Namespace) -> int:
    """Write the page and say what it leaves out."""
    path, rows, refused = write_report(args.benches, args.output)
    if refused:
        print(f"{refused} of {rows} rows are refused; the page says why")
    print(f"written: {path}")
    return 0


def _compare_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "compare",
        "Compare two benchmarks; exit code 1 where a row became slower by more than is allowed, is missing "
        "in the new one or was refused, 2 where they cannot be compared.",
        "example:\n  dots-zoo compare old.json new.json --fail-over 5%",
    )
    parser.add_argument("old", type=Path, metavar="old.json")
    parser.add_argument("new", type=Path, metavar="new.json")
    parser.add_argument("--fail-over", default="5%", metavar="P%", help="how much slower p50 may become")
    parser.add_argument("--any-machine", action="store_true", help="compare across different hardware")
    return parser


def run_compare(args: argparse.Namespace) -> int:
    """Print a line for every timing; return 1 where one fails."""
    over = fraction(args.fail_over, "--fail-over")
    changes = compare(args.old, args.new, any_machine=args.any_machine)
    print("\n".join(change.line(over) for change in changes))
    failed = sum(change.fails(over) for change in changes)
    print(f"{failed} of {len(changes)} fail at {args.fail_over} over the old p50")
    return int(failed > 0)
