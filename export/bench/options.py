"""The options that the commands of the benchmark share, and how their values are read."""

import argparse
import re
from pathlib import Path
from typing import Any

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import OPTIMISATIONS, PROVIDERS, Gpu
from .checks import WAIVERS
from .latency import Plan


def command_parser(command: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a command's parser, which keeps the line breaks of the examples."""
    return argparse.ArgumentParser(
        f"dots-zoo {command}",
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_plan(parser: argparse.ArgumentParser, plan: Plan) -> None:
    """Add the options that say where and how well to measure; their defaults are the plan's."""
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
    """Return the plan that the options of add_plan give. Raises DotsZooError for what makes no sense."""
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
    """Return '5%' as 0.05. Raises DotsZooError for anything but a percentage."""
    if not re.fullmatch(r"\d{1,4}(\.\d{1,4})?%", text):
        raise DotsZooError(f"{option}: expected a percentage, such as 5%, got {text!r}")
    return float(text[:-1]) / 100
