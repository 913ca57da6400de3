"""The cost tables of the paper with our counts and measured latency beside its figures.

Counts need no weights and no export. For the latency every network is exported and proven as any other, and
all are measured in one interleaved benchmark.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import nn

import dots_zoo
from dots_zoo.macs import count
from dots_zoo.runtime.errors import DotsZooError

from ..convert.options import ExportOptions
from ..convert.to_onnx import export_onnx
from ..convert.trace import Exporter
from ..measure.latency import Plan, measure
from ..measure.machine import machine, versions
from ..measure.rows import Row
from ..measure.schema import read_bench
from .paper_tables import TABLES, Line, Network, Size, Table

SCHEMA = 1
KIND = "tables"
MOBILE_LIMIT = 600e6  # MACs at 224x224: the mobile setting of the NAS papers
WORKERS = 2  # exports at a time: an export is one thread

Task = Literal["classify", "features"]


@dataclass(frozen=True)
class Item:
    """One network at one size, counted, exported and measured once, wherever it appears."""

    network: Network
    task: Task
    size: Size

    @property
    def file(self) -> str:
        """The name of its ONNX file."""
        size = "x".join(map(str, self.size[1:]))
        return f"{self.network.key}_{size}{'_features' if self.task == 'features' else ''}.onnx"


def build(item: Item, device: str = "cpu") -> nn.Module:
    """Build the network with random weights, in evaluation mode, under the name that the tables give it."""
    network = item.network
    if network.library == "timm":
        arguments = dict(network.arguments)
        if item.task == "features":
            arguments |= {"features_only": True, "out_indices": (1, 2, 3, 4)}
        model: Any = timm.create_model(network.name, device=device, **arguments)
        if item.task == "classify":
            model.pretrained_cfg = {**model.pretrained_cfg, "architecture": network.key}
        return model.eval()  # type: ignore[no-any-return]
    with torch.device(device):
        model = torchvision.models.get_model(network.name, weights=None, **network.arguments)
    model.pretrained_cfg = {"architecture": network.key, "input_size": item.size}
    return model.eval()  # type: ignore[no-any-return]


def registered() -> list[Item]:
    """Return the networks of dots_zoo that have a cell of their own, each at its own size."""
    names = [name for name in timm.list_models(module="zoo") if not name.startswith("cell_")]
    return [Item(Network(name), "classify", _own_size(name)) for name in names]


def _own_size(name: str) -> Size:
    cfg: Any = timm.get_pretrained_cfg(name)
    size: Size = cfg.input_size
    return size


def items(pattern: str = "*") -> list[Item]:
    """Return everything to count and measure whose name matches, each once."""
    in_tables = [
        Item(line.network, table.task, table.size) for table in TABLES for line in table.lines if line.network
    ]
    by_file = {item.file: item for item in [*in_tables, *registered()]}
    return [item for item in by_file.values() if fnmatch(item.network.key, pattern)]


def tables(
    plan: Plan | None,
    *,
    pattern: str = "*",
    exporter: Exporter = "torchscript",
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return (the tables, the benchmark of their latency), as JSON.

    plan: None counts and measures nothing. pattern: of the networks to select; the others' rows have the
    paper's figures only. Raises DotsZooError where no network matches, and ParityError where an export is
    not proven.
    """
    chosen = items(pattern)
    if not chosen:
        raise DotsZooError(f"tables: no network matches {pattern!r}: dots-zoo list prints ours")
    counts = {item.file: _counts(item) for item in chosen}
    progress(f"counted: {len(chosen)} networks")
    measured = _measure(chosen, plan, exporter, progress) if plan else None
    rows = {row.file: row for row in read_bench(measured).rows if _is_shown(row, plan)} if measured else {}
    document = {
        "schema": SCHEMA,
        "kind": KIND,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": measured["machine"] if measured else machine(),
        "versions": versions(),
        "counter": f"dots_zoo.macs {dots_zoo.__version__}: convolutions and linear layers",
        "latency": _setting(plan),
        "tables": [_table(table, counts, rows) for table in TABLES] + [_ours(counts, rows)],
    }
    return document, measured


def _counts(item: Item) -> dict[str, int]:
    costs = count(build(item, "meta"), item.size)
    return {"params": costs.params, "macs": costs.macs}


def _measure(
    chosen: Sequence[Item], plan: Plan, exporter: Exporter, progress: Callable[[str], None]
) -> dict[str, Any]:
    with _folder() as folder:
        with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
            for file in pool.map(_export, chosen, [folder] * len(chosen), [exporter] * len(chosen)):
                progress(f"exported and proven: {file}")
        return measure([folder / item.file for item in chosen], plan, progress=progress)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _export(item: Item, folder: Path, exporter: Exporter) -> str:
    """Export an item with one thread, in a process of its own; return the name of its file."""
    torch.set_num_threads(1)
    options = ExportOptions(task=item.task, input_size=item.size, exporter=exporter)
    export_onnx(build(item), folder / item.file, options)
    return item.file


def _is_shown(row: Row, plan: Plan | None) -> bool:
    """Return True for a row of the first provider, batch and threads: the tables have one latency."""
    assert plan is not None
    first = (plan.batches[0], plan.threads[0])
    return (row.batch, row.threads) == first and row.provider_asked == _setting(plan)["provider"]


def _setting(plan: Plan | None) -> dict[str, Any]:
    from ..ort_session import PROVIDERS

    if plan is None:
        return {}
    return {
        "engine": "onnxruntime",
        "provider": PROVIDERS[plan.providers[0]],
        "batch": plan.batches[0],
        "threads": plan.threads[0],
    }


def _table(table: Table, counts: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Any]:
    return {
        "key": table.key,
        "title": table.title,
        "note": table.note,
        "score": table.score,
        "input_size": list(table.size),
        "rows": [_line(line, table, counts, rows) for line in table.lines],
    }


def _line(line: Line, table: Table, counts: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Any]:
    paper = {"params": line.params, "macs": line.macs, "score": line.score}
    item = Item(line.network, table.task, table.size) if line.network else None
    costs = counts.get(item.file) if item else None
    difference = _difference(line, costs) if costs and table.whole and line.same else None
    return {
        "architecture": line.architecture,
        "paper": paper,
        **_own(item, counts, rows),
        "difference": difference,
        "note": line.note,
    }


def _own(item: Item | None, counts: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return our part of a row, None where there is no public network or it was not selected."""
    if item is None or item.file not in counts:
        return {"network": None, "ours": None, "over_mobile_limit": False, "latency": None}
    costs = counts[item.file]
    return {
        "network": {"name": item.network.name, "library": item.network.library, "label": item.network.key,
                    "arguments": item.network.arguments},
        "ours": costs,
        "over_mobile_limit": item.size[1:] == (224, 224) and costs["macs"] > MOBILE_LIMIT,
        "latency": _latency(rows[item.file]) if item.file in rows else None,
    }  # fmt: skip


def _difference(line: Line, costs: Mapping[str, int]) -> dict[str, float]:
    """Return ours / the paper's - 1."""
    return {"params": costs["params"] / line.params - 1, "macs": costs["macs"] / line.macs - 1}


def _latency(row: Row) -> dict[str, Any]:
    """Return the times, or why they are withheld."""
    if row.failures:
        return {"refused": "; ".join(f"{check}: {why}" for check, why in row.failures.items())}
    keys = ("p50_ms", "p95_ms", "cv", "noisy")
    return {
        **{key: getattr(row.resident, key) for key in keys},
        "end_to_end_p50_ms": row.end_to_end.p50_ms,
        "peak_memory_bytes": row.peak_memory_bytes,
    }


def _ours(counts: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return all registered networks; `paper` has no costs, and the score that `dots-zoo list` shows."""
    lines = []
    for item in registered():
        cfg: Any = timm.get_pretrained_cfg(item.network.name)
        score = "; ".join(cfg.notes or ()).replace("paper: ", "")
        if item.file in counts:
            paper = {"params": None, "macs": None, "score": score or None}
            ours = _own(item, counts, rows)
            lines.append(
                {"architecture": item.network.name, "paper": paper, **ours, "difference": None,
                 "note": f"{item.size[1]}x{item.size[2]}"}
            )  # fmt: skip
    return {
        "key": "registered",
        "title": "All networks that dots_zoo registers",
        "note": "Each at its own input size, with the accuracy that its paper reports.",
        "score": "accuracy in the paper, %",
        "input_size": None,
        "rows": lines,
    }
