"""The commands `bench`, `report`, `compare` and `tables`: options in, files and lines out."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dots_zoo.errors import DotsZooError
from dots_zoo.files import write_file

from .checks import WAIVERS
from .compare import compare
from .latency import Plan, bench
from .report import write_report
from .schema import Row, dump, read_bench
from .session import OPTIMISATIONS, PROVIDERS, Gpu
from .timing import Timing

EXAMPLES = """\
examples:
  dots-zoo bench m.onnx --provider cpu --batch 1 8 -o bench.json
  dots-zoo bench m.onnx m_int8.onnx other.onnx --threads 1 2 --torch eager -o bench.json
  dots-zoo bench m.onnx --provider cpu cuda tensorrt --batch 1 32 --cuda-graph --engine-cache trt -o b.json"""


def main(argv: Sequence[str]) -> int:
    """Run `bench ...`, `report ...` or `compare ...`; 1: a check failed, or a network became slower."""
    parsers = {"bench": _bench_parser, "report": _report_parser, "compare": _compare_parser}
    runs = {"bench": run_bench, "report": run_report, "compare": run_compare}
    return runs[argv[0]](parsers[argv[0]]().parse_args(argv[1:]))


def _parser(command: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        f"dots-zoo {command}",
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_plan(parser: argparse.ArgumentParser, plan: Plan) -> None:
    """The options that say where and how well to measure; their defaults are the plan's."""
    parser.add_argument("--provider", nargs="+", choices=tuple(PROVIDERS), default=list(plan.providers))
    parser.add_argument("--batch", nargs="+", type=int, default=list(plan.batches), metavar="N")
    parser.add_argument(
        "--threads", nargs="+", type=int, default=list(plan.threads), metavar="N", help="within an operator"
    )
    parser.add_argument(
        "--seconds", type=float, default=plan.min_seconds, help="at least, of either timing of a row"
    )
    parser.add_argument("--iterations", type=int, default=plan.min_iterations, help="at least, likewise")
    parser.add_argument("--rounds", type=int, default=plan.rounds, help="turns that a row takes")
    parser.add_argument(
        "--max-spread",
        default=f"{plan.max_spread:.0%}",
        metavar="P%",
        help="of the medians of the rounds: a row above it is not published",
    )
    parser.add_argument("--graph-optimisation", choices=tuple(OPTIMISATIONS), default=plan.optimisation)
    parser.add_argument(
        "--allow",
        nargs="+",
        choices=WAIVERS,
        default=[],
        help="fallback: nodes may run on the CPU; unproven: files without a comparison with PyTorch",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the processes that measure memory"
    )
    group = parser.add_argument_group("GPU")
    group.add_argument("--cudnn-search", choices=("exhaustive", "heuristic", "default"), default="exhaustive")
    group.add_argument("--tf32", choices=("on", "off"), default="on", help="float32 products rounded to TF32")
    group.add_argument("--cuda-graph", action="store_true", help="further rows with a captured CUDA graph")
    group.add_argument("--engine-cache", type=Path, metavar="DIR", help="keep TensorRT's engines here")


def plan_of(args: argparse.Namespace, **more: Any) -> Plan:
    """The plan that the options of add_plan give. Raises DotsZooError for what makes no sense."""
    gpu = Gpu(
        cudnn_search=args.cudnn_search,
        tf32=args.tf32 == "on",
        cuda_graph=args.cuda_graph,
        engine_cache=args.engine_cache,
    )
    return Plan(
        providers=tuple(args.provider),
        batches=tuple(args.batch),
        threads=tuple(args.threads),
        optimisation=args.graph_optimisation,
        min_iterations=args.iterations,
        min_seconds=args.seconds,
        rounds=args.rounds,
        max_spread=fraction(args.max_spread, "--max-spread"),
        allow=tuple(args.allow),
        memory=not args.no_memory,
        gpu=gpu,
        **more,
    )


def fraction(text: str, option: str) -> float:
    """'5%' -> 0.05. Raises DotsZooError for anything but a percentage."""
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4})?%", text):
        raise DotsZooError(f"{option}: expected a percentage, such as 5%, got {text!r}")
    return float(text[:-1]) / 100


def image_size(text: str) -> tuple[int, int]:
    """'224x320' -> (224, 320), height first. Raises DotsZooError for anything else."""
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", text):
        raise DotsZooError(f"--input: expected HEIGHTxWIDTH, such as 224x320, got {text!r}")
    height, width = text.split("x")
    return int(height), int(width)


def check_folder(output: Path) -> None:
    """Before the work, not after it. Raises DotsZooError."""
    if not os.access(output.parent, os.W_OK):
        raise DotsZooError(f"{output}: cannot be written: give a file in an existing, writable folder")


def _bench_parser() -> argparse.ArgumentParser:
    parser = _parser("bench", "Measure the latency of ONNX files, all in one interleaved run.", EXAMPLES)
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
    """Measure, write the JSON, print a line a row."""
    size = image_size(args.input) if args.input else None
    plan = plan_of(args, torch=tuple(args.torch), input_size=size)
    check_folder(args.output)
    document = bench(args.files, plan, progress=lambda line: print(line, flush=True))
    write_file(args.output, dump(document))
    rows = read_bench(document).rows
    print("\n".join(line for row in rows for line in row_lines(row)))
    print(f"written: {args.output}")
    return int(any(row.failures.keys() & {"parity", "provider"} for row in rows))


def row_lines(row: Row) -> list[str]:
    """A row for a terminal, with a warning where there is one."""
    kind = " ".join([row.engine, *(["+ CUDA graph"] if row.cuda_graph else [])])
    where = f"{row.provider_asked}, {row.threads} thread{'' if row.threads == 1 else 's'}"
    lines = [
        f"{row.model} {row.precision} batch {row.batch}, {kind}, {where}: {_times(row.resident)}; "
        f"end-to-end {_times(row.end_to_end)}"
    ]
    for name, timing in (("device-resident", row.resident), ("end-to-end", row.end_to_end)):
        if timing.noisy:
            lines.append(f"  warning: {name}: the standard deviation is {timing.cv:.1%} of the mean")
    return lines + [f"  refused: {check}: {why}" for check, why in row.failures.items()]


def _times(timing: Timing) -> str:
    return f"p50 {timing.p50_ms:.3f} ms, p95 {timing.p95_ms:.3f} ms, {timing.throughput_per_s:.1f} images/s"


def _report_parser() -> argparse.ArgumentParser:
    parser = _parser("report", "Render benchmarks as a page; rows that failed a check are refused.")
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
    parser = _parser(
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
    """Print a line a timing; 1 where one fails."""
    over = fraction(args.fail_over, "--fail-over")
    changes = compare(args.old, args.new, any_machine=args.any_machine)
    print("\n".join(change.line(over) for change in changes))
    failed = sum(change.fails(over) for change in changes)
    print(f"{failed} of {len(changes)} fail at {args.fail_over} over the old p50")
    return int(failed > 0)
