"""Run the whole chain once, small: search, retrain, register, export, measure, on handwritten digits.

scikit-learn's digits ship with it; they are searched and trained at their 8x8 pixels, turned and shifted over
pieces of a photograph, so that not every network names them all. Every process uses one thread, so that the
result does not depend on the machine's cores; the control, a random cell of about the same cost, is trained
beside the cell that was found, in a process of its own.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch

from ..drawing.draw import draw
from ..genotype import Genotype, save_genotype, to_text
from ..runtime.atomic_write import write_file
from ..runtime.best_effort import attempt
from ..runtime.errors import DotsZooError
from ..zoo import register
from .demo_cells import DATA, Settings, baselines, compare, cost, nearest, random_cells, retrain, verdicts
from .demo_page import page

NAME = "demo_cell"  # timm name of the searched cell
FILES = ("cell.svg", "random.json", "weights.safetensors", "m.onnx", "bench.json", "report.html")


@dataclass(frozen=True)
class _Clock:
    """A clock of the wall time of each step in seconds, which prints a line as the step begins."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, line: str) -> Iterator[None]:
        print(line, flush=True)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 1)


def demo(
    out: Path, seed: int = 0, settings: Settings | None = None, search_options: Sequence[str] = ()
) -> dict[str, Any]:
    """Run the chain into the folder `out`; return the contents of `demo.json`, which `report.html` shows.

    search_options: options of `dots-zoo search dots` that override its preset digits_small. Raises
    DotsZooError where `out` holds anything but an earlier demo.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = _run(out, seed, settings or Settings(), search_options)
    finally:
        torch.set_num_threads(threads)
    write_file(out / "demo.json", json.dumps(result, indent=1).encode())
    write_file(out / "report.html", page(result, out).encode())
    return result


def summary(result: dict[str, Any], out: Path) -> str:
    """Return the accuracies, the parity, the time and the files of a demo as text."""
    rows = [f"  {row['name']:<30} {100 * row['accuracy']:6.2f} %" for row in result["accuracies"]]
    files = {"cell": "cell.svg", "genotype": "search/genotype.json", "weights": "weights.safetensors"}
    files |= {"ONNX": "m.onnx", "report": "report.html"}
    lines = [f"  {label:<9} {out / name}" for label, name in files.items() if (out / name).is_file()]
    parity = f"ONNX against PyTorch: {result['parity']['error']:.1e} of how much the output moves"
    took = f"took {sum(result['seconds'].values()):.0f} s"
    timed = result["bench"]["rows"]
    refused = sum(bool(row["failures"]) for row in timed)
    checks = (
        [f"{refused} of {len(timed)} rows of latency are refused; the report says why"] if refused else []
    )
    title = "test accuracy on handwritten digits over photographs:"
    return "\n".join([title, *rows, *verdicts(result), parity, *checks, took, *lines])


def _prepare(out: Path) -> None:
    """Create the folder, or remove an earlier demo's files from it."""
    marker = out / "demo.json"
    if out.is_dir() and any(out.iterdir()):
        if not marker.is_file():
            raise DotsZooError(f"{out}: expected a new or empty folder or an earlier demo's; choose another")
        shutil.rmtree(out / "search", ignore_errors=True)
        for name in FILES:
            (out / name).unlink(missing_ok=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DotsZooError(f"{out}: cannot be made: {error.strerror}") from error
    write_file(marker, json.dumps({"schema": 1, "kind": "demo", "finished": False}).encode())


def _run(out: Path, seed: int, settings: Settings, search_options: Sequence[str]) -> dict[str, Any]:
    from dots_zoo.export.convert.to_onnx import export_onnx
    from dots_zoo.search.run.command import choose
    from dots_zoo.search.run.run import run_search

    from ..data.load import load_data

    fixed = ["dots", "--preset", "digits_small", "--data", DATA, "--out", str(out / "search")]
    fixed += ["--training.seed", str(seed)]
    chosen, clock = choose([*fixed, *search_options]), _Clock()
    data = load_data(chosen.data)
    _prepare(out)
    random_file, searched_file = out / "random.json", out / "search/genotype.json"
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        drawing = pool.submit(random_cells, seed, settings)
        with clock.step("search", "1/4 search with DOTS"):
            what = chosen.method, chosen.config, chosen.derivation, chosen.space
            genotype = run_search(*what, data, chosen.out)
            attempt(str(out / "cell.svg"), partial(draw, genotype, out / "cell.svg"))
        control = nearest(drawing.result(), *cost(genotype, settings))
        save_genotype(control, random_file)
        with clock.step("retrain", "2/4 retrain the cell that was found, and a random cell of its cost"):
            training = pool.submit(retrain, random_file, None, seed, settings)
            own = retrain(searched_file, out / "weights.safetensors", seed, settings)
            random = training.result()
    with clock.step("export", "3/4 register it with timm, export and check it"):
        _register(genotype, out / "weights.safetensors", settings, data)
        exported = export_onnx(timm.create_model(NAME, pretrained=True), out / "m.onnx")
    with clock.step("bench", "4/4 measure it"):
        bench = _bench(out, settings)
    return {
        "schema": 1,
        "kind": "demo",
        "finished": True,
        "seed": seed,
        "data": {"images": len(data.labels), "test_images": len(data.test_labels), "input_size": [1, 8, 8]},
        "settings": asdict(settings),
        "search": {"space": chosen.space, **asdict(chosen.derivation), **asdict(chosen.config)},
        "genotype": to_text(genotype),
        "random_genotype": to_text(control),
        "accuracies": [
            own.row("cell found by DOTS"),
            random.row("random cell of about its cost"),
            *baselines(data),
        ],
        "comparison": compare(own.hits, random.hits).as_dict(),
        "parity": exported.parity.as_dict(),
        "bench": bench,
        "seconds": clock.seconds,
    }


def _register(genotype: Genotype, weights: Path, settings: Settings, data: Any) -> None:
    cfg = {
        "file": str(weights),
        "input_size": (1, 8, 8),
        "num_classes": 10,
        "mean": data.mean,
        "std": data.std,
    }
    register(NAME, genotype, "cifar", cfg=cfg, overwrite=timm.is_model(NAME), **settings.shape)


def _bench(out: Path, settings: Settings) -> dict[str, Any]:
    from dots_zoo.export.measure.latency import Plan, measure
    from dots_zoo.export.measure.schema import dump

    plan = Plan(batches=(1, 8, 64), min_seconds=settings.bench_seconds)
    measured: dict[str, Any] = measure([out / "m.onnx"], plan)
    write_file(out / "bench.json", dump(measured))
    return measured
