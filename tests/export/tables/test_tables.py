"""The paper's figures as typed, our counts against golden numbers, and the chain on small networks."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision.models import GoogLeNet_Weights, ResNet50_Weights

from dots_zoo.commands.cli import main
from dots_zoo.export.convert.parity import ParityError
from dots_zoo.export.measure import latency
from dots_zoo.export.measure.latency import Plan
from dots_zoo.export.tables import tables
from dots_zoo.export.tables.page import columns, to_html, to_markdown
from dots_zoo.export.tables.paper_tables import (
    DETECTION,
    IMAGENET,
    SEGMENTATION,
    TABLES,
    Line,
    Network,
    Table,
)
from dots_zoo.macs import count
from helpers.paths import GOLDEN

SMALL = Table(
    key="small",
    title="Small",
    score="top-1",
    task="classify",
    size=(3, 32, 32),
    lines=(
        Line("Known", 1e6, 2e7, "50", Network("test_byobnet")),
        Line("Unknown", 3e6, 4e7, "60", note="nowhere | to be had"),
        Line("Nearest", 5e6, 6e7, "70", Network("test_byobnet"), same=False),
    ),
)


class Serial:
    """A pool without processes."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __enter__(self) -> "Serial":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, run: Callable[..., Any], *parts: Iterable[Any]) -> Iterable[Any]:
        return map(run, *parts)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES", (SMALL,))
    monkeypatch.setattr(tables, "registered", lambda: [])
    monkeypatch.setattr(tables, "ProcessPoolExecutor", Serial)
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)


QUICK = Plan(batches=(2, 1), min_iterations=2, min_seconds=0.0, rounds=2, max_spread=1e6, memory=False)


def test_the_paper_s_figures_as_typed():
    assert [len(table.lines) for table in TABLES] == [22, 7, 4]
    # sums of the columns as the paper prints them
    assert sum(line.params for line in IMAGENET.lines) == pytest.approx(115.7e6)
    assert sum(line.macs for line in IMAGENET.lines) == pytest.approx(12_875e6)
    assert sum(float(line.score) for line in IMAGENET.lines) == pytest.approx(1635.4)
    assert sum(line.params for line in DETECTION.lines) == pytest.approx(53.8e6)
    assert sum(line.macs for line in DETECTION.lines) == pytest.approx(6326e6)
    assert sum(float(line.score) for line in DETECTION.lines) == pytest.approx(2.233)
    assert sum(line.params for line in SEGMENTATION.lines) == pytest.approx(30.8e6)
    assert sum(line.macs for line in SEGMENTATION.lines) == pytest.approx(48.1e9)


def test_our_counts_stand_beside_the_paper_s():
    document, bench = tables.tables(None, pattern="dots_imagenet")
    assert bench is None and document["latency"] == {}
    imagenet, detection, segmentation, registered = document["tables"]
    row = imagenet["rows"][-1]
    assert (row["architecture"], row["network"]["name"]) == ("DOTS (ImageNet)", "dots_imagenet")
    assert row["paper"] == {"params": 5.3e6, "macs": 596e6, "score": "76.0"}
    assert row["ours"] == {"params": 5_348_032, "macs": 587_347_392}
    assert row["difference"]["macs"] == pytest.approx(587_347_392 / 596e6 - 1)
    assert detection["rows"][-1]["ours"] == row["ours"] and row["over_mobile_limit"] is False
    backbone = segmentation["rows"][-1]
    classifier = 768 * 1000 + 1000
    assert backbone["ours"]["params"] == 5_348_032 - classifier and backbone["difference"] is None
    # strides divide 224 and 512x1024: every map grows by the same factor
    grown = (587_347_392 - 768 * 1000) * (512 * 1024) / (224 * 224)
    assert backbone["ours"]["macs"] == pytest.approx(grown)
    [own] = registered["rows"]
    assert own["ours"] == row["ours"] and own["paper"]["score"] == "76.0 ImageNet (DOTS)"
    absent = next(row for row in imagenet["rows"] if row["architecture"] == "AmoebaNet-C")
    assert absent["network"] is None and absent["ours"] is None and absent["paper"]["macs"] == 570e6


def test_baselines_of_every_kind_are_built():
    resnet = tables.Item(DETECTION.lines[0].network, "classify", (3, 224, 224))
    googlenet = tables.Item(IMAGENET.lines[0].network, "classify", (3, 224, 224))
    cell = tables.Item(IMAGENET.lines[12].network, "classify", (3, 224, 224))
    for item, published in ((resnet, ResNet50_Weights), (googlenet, GoogLeNet_Weights)):
        meta = published.IMAGENET1K_V1.meta  # torchvision's own counts, "_ops" in billions
        costs = count(tables.build(item, "meta"), item.size)
        assert costs.params == meta["num_params"]
        assert costs.macs / 1e9 == pytest.approx(meta["_ops"], abs=1e-3)
    # FairDARTS' own paper: 541 M
    assert count(tables.build(cell, "meta"), cell.size).macs == pytest.approx(541e6, rel=1e-3)
    for item in (resnet, googlenet, cell):
        model = tables.build(item, "meta")
        assert model.pretrained_cfg["architecture"] == item.network.key and not model.training


def test_every_network_of_the_tables_is_there():
    import torchvision

    networks = {line.network.key: line.network for table in TABLES for line in table.lines if line.network}
    for network in networks.values():
        known = timm.list_models() if network.library == "timm" else torchvision.models.list_models()
        assert network.name in known
    registered = {item.network.name for item in tables.registered()}  # other tests may have added some
    assert json.loads((GOLDEN / "costs.json").read_text()).keys() <= registered
    files = [item.file for item in tables.items()]
    assert len(files) == len(set(files)) and {"dots_imagenet_224x224.onnx", "darts_v1_32x32.onnx"} <= set(
        files
    )
    assert "resnet18_512x1024_features.onnx" in files


def test_measured_latency_stands_beside_both(small: None):
    progress_lines: list[str] = []
    document, bench = tables.tables(QUICK, progress=progress_lines.append)
    known, unknown, nearest = document["tables"][0]["rows"]
    [_, row] = [row for row in bench["rows"] if row["file"] == "test_byobnet_32x32.onnx"]
    shown = next(row for row in bench["rows"] if row["batch"] == 2)  # the first batch
    assert known["latency"]["p50_ms"] == shown["resident"]["p50_ms"] and row["failures"] == {}
    assert known["latency"] == nearest["latency"] and unknown["latency"] is unknown["ours"] is None
    assert (
        known["difference"]["params"] == known["ours"]["params"] / 1e6 - 1 and nearest["difference"] is None
    )
    assert document["latency"] == {
        "engine": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "batch": 2,
        "threads": 1,
    }
    assert "exported and proven: test_byobnet_32x32.onnx" in progress_lines


def test_a_refused_row_says_why_on_every_page(small: None, monkeypatch: pytest.MonkeyPatch):
    document, _ = tables.tables(Plan(**{**vars(QUICK), "max_spread": 1e-9}))
    row = document["tables"][0]["rows"][0]
    assert list(row["latency"]) == ["refused"] and row["latency"]["refused"].startswith("stability: ")
    for page in (to_html(document), to_markdown(document)):
        assert "refused: stability: medians of rounds lie " in page
    cells = {heading: cell(row)[0] for heading, cell in columns(document["tables"][0]).items()}
    assert cells["p50 ms"] == cells["p95 ms"] == "refused"


def test_an_export_that_is_not_proven_ends_it(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def unproven(*arguments: Any, **options: Any) -> None:
        raise ParityError("test_byobnet: the graph is wrong")

    folders = []
    monkeypatch.setattr(tables, "export_onnx", unproven)
    monkeypatch.setattr(
        tables.tempfile, "mkdtemp", lambda: folders.append(tmp_path / "t") or folders[0].mkdir() or folders[0]
    )
    with pytest.raises(ParityError, match="the graph is wrong"):
        tables.tables(QUICK)
    assert not folders[0].exists()


def test_pages_hold_what_the_json_holds(small: None):
    document, _ = tables.tables(None)
    known = document["tables"][0]["rows"][0]
    page, text = to_html(document), to_markdown(document)
    for figure in (
        "1.0",
        "20",
        f"{known['ours']['params'] / 1e6:.2f}",
        f"{known['difference']['macs']:+.1%}",
    ):
        assert f">{figure}</td>" in page and f" {figure} |" in text
    assert "not measured" in page and "None" not in page + text
    assert "nowhere | to be had" in page and "nowhere \\| to be had" in text


def test_the_command_writes_five_files(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "a" / "b"
    quick = "--seconds 0 --iterations 2 --rounds 2 --max-spread 9999% --no-memory".split()
    quick += ["--only", "test_byo*", "--batch", "4", "--threads", "2"]
    assert main(["tables", "--out", str(out), *quick]) == 0
    names = ["bench.json", "report.html", "tables.html", "tables.json", "tables.md"]
    assert sorted(path.name for path in out.iterdir()) == names
    document, bench = (json.loads((out / name).read_text()) for name in ("tables.json", "bench.json"))
    [row] = bench["rows"]
    assert (row["batch"], row["threads"]) == (4, 2)
    assert document["tables"][0]["rows"][0]["latency"]["p50_ms"] == row["resident"]["p50_ms"]
    assert f"written: {out / 'report.html'}\n0 of 1 rows are refused\n" in capsys.readouterr().out
    assert main(["tables", "--out", str(tmp_path / "counts"), "--counts-only"]) == 0
    assert sorted(path.name for path in (tmp_path / "counts").iterdir()) == names[2:]


def test_a_full_disk_leaves_neither_some_of_the_files_nor_the_folder(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write = Path.write_bytes
    room = iter([True, True])

    def full(path: Path, data: bytes) -> int:
        if next(room, False):
            return write(path, data)
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["tables", "--out", str(tmp_path / "a" / "b"), "--counts-only"]) == 2
    assert "tables.html: cannot be written (No space left on device)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_exporter_is_the_one_asked_for(
    small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def gives_up(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("enough")

    monkeypatch.setattr(torch.onnx, "export", gives_up)
    assert main(["tables", "--out", str(tmp_path), "--exporter", "dynamo"]) == 2
    assert "the dynamo exporter cannot export this model: enough" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "nothing_*"], "tables: no network matches 'nothing_*'"),
        (["--out", "file"], "file: cannot be made: "),
        (["--batch", "0"], "batches, threads and rounds from 1 up"),
    ],
)
def test_bad_input(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert main(["tables", "--out", ".", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dots-zoo: error: ") and message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
