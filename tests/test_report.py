"""The page holds what the JSON holds, hostile text stays text, and what is not a benchmark is refused."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dots_zoo.errors import DotsZooError
from dots_zoo.export.plot import latency_svg
from dots_zoo.export.report import write_report
from dots_zoo.export.schema import read_bench

HOSTILE = "<script>alert('x')</script>|$\\frac{\" onload=1 &amp; \x00模型\n"

ROW = {
    "model": "my_model",
    "file": "m.onnx",
    "sha256": "0123456789abcdef" * 4,
    "provider_asked": "CPUExecutionProvider",
    "provider_used": "CPUExecutionProvider",
    "threads": 3,
    "batch": 8,
    "input_shape": [8, 3, 224, 320],
    "warmup_iterations": 17,
    "iterations": 61,
    "seconds": 2.0625,
    "p50_ms": 33.25,
    "p90_ms": 34.375,
    "p95_ms": 35.125,
    "p99_ms": 36.875,
    "mean_ms": 33.625,
    "std_ms": 0.625,
    "cv": 0.0186,
    "unstable": False,
    "throughput_per_s": 237.9,
    "macs": 587347392,
    "flops": 1174694784,
    "samples_ms": None,
}


def document(*changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "bench",
        "created": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "Some CPU @ 3 GHz", "cores": 12, "usable_cores": 2, "gpu": None},
        "versions": {"onnxruntime": "1.2.3"},
        "rows": [{**ROW, **change} for change in changes or ({},)],
    }


class Page(HTMLParser):
    """Tags, and the texts outside of style and svg."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_every_figure_is_on_the_page(tmp_path: Path):
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps(document()))
    page = write_report([bench], tmp_path / "report.html").read_text()
    shown = [
        *("my_model", "8", "33.250", "34.375", "35.125", "36.875", "33.625", "0.625", "1.9%", "237.9"),
        *("587,347,392", "1,174,694,784", "8x3x224x320", "3", "CPUExecutionProvider", "61 in 2.06 s", "17"),
        *("m.onnx", "0123456789ab"),
    ]
    texts = Page(page).texts
    assert [text for text in shown if text not in texts] == []
    for text in ("Some CPU @ 3 GHz", "12", "2", "1.2.3", "2026-01-02T03:04:05+00:00"):
        assert text in texts
    assert "None" not in page
    assert "unstable" not in texts and "my_model, batch 8" in page  # the label of the plot


def test_the_page_needs_nothing_from_outside(tmp_path: Path):
    page = write_report([document()], tmp_path / "report.html").read_text()
    tags = Page(page).tags
    assert {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in tags} == set()
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert "currentColor" in page and "#010203" not in page  # the plot takes the colours of the page


def test_unstable_rows_are_marked(tmp_path: Path):
    rows = document({"model": "calm"}, {"model": "wild", "cv": 0.0713, "unstable": True})
    page = write_report([rows], tmp_path / "report.html").read_text()
    assert "7.1% unstable" in page and page.count('<tr class="marked">') == 1
    assert "7.1% unstable" in write_report([rows], tmp_path / "report.md").read_text()
    calm, wild = (latency_svg(read_bench(document({"unstable": flag})).rows) for flag in (False, True))
    assert calm != wild  # a hollow dot


def test_hostile_text_stays_text(tmp_path: Path):
    evil = document({"model": HOSTILE, "file": HOSTILE, "sha256": HOSTILE})
    evil["machine"] = {HOSTILE: HOSTILE}
    evil["versions"] = {HOSTILE: HOSTILE}
    evil["created"] = HOSTILE
    page = write_report([evil], tmp_path / "report.html").read_text()
    tags = Page(page).tags
    assert "script" not in {tag for tag, _ in tags}
    assert all("onload" not in attributes for _, attributes in tags)
    text = write_report([evil], tmp_path / "report.md").read_text()
    assert "<script" not in text and "\n&lt;script&gt;" not in text
    [row] = [line for line in text.splitlines() if line.startswith("| &lt;script")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 21  # 20 columns: the name's own bar is escaped


def test_several_benchmarks_and_many_rows(tmp_path: Path):
    many = document(*({"model": f"model_{i}", "batch": 1 + i % 2} for i in range(50)))
    page = write_report([document(), many], tmp_path / "report.html").read_text()
    assert page.count("<svg") == page.count("<table>") == 2
    assert page.count("<tr>") == 1 + 1 + 1 + 50


def test_plot_labels_name_the_file_where_models_are_alike():
    rows = [
        {"file": "fp32.onnx", "sha256": "a"},
        {"file": "int8.onnx", "sha256": "b"},
        {"model": "x" * 30 + "y" * 10},
        {"model": "$a$"},  # not mathematics
    ]
    svg = latency_svg(read_bench(document(*rows)).rows)
    for label in ("fp32.onnx", "int8.onnx", "x" * 10 + "...x" + "y" * 10, "$a$"):
        assert f">{label}, batch 8<" in svg


def test_markdown_table(tmp_path: Path):
    text = write_report([document()], tmp_path / "report.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    values = dict(zip(cells[0], cells[2], strict=True))
    assert (values["model"], values["p95 ms"], values["MACs"]) == ("my_model", "35.125", "587,347,392")
    assert "- cpu: Some CPU @ 3 GHz" in text


def without(key: str) -> dict[str, Any]:
    changed = document()
    del changed["rows"][0][key]
    return changed


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], 'not a benchmark: expected a JSON object with "kind": "bench"'),
        ({"schema": 1, "kind": "demo"}, "not a benchmark"),
        ({**document(), "schema": 2}, "expected schema 1, got 2: run the bench again"),
        ({**document(), "rows": []}, "has no rows"),
        ({**document(), "rows": {}}, "rows is missing or of the wrong type"),
        ({**document(), "machine": None}, "machine is missing or of the wrong type"),
        ({**document(), "rows": [3]}, "row 0: expected an object, got 3"),
        (without("p95_ms"), r"row 0: keys missing: \['p95_ms'\], keys not in schema 1: \[\]"),
        (document({"gflops": 1}), r"row 0: keys missing: \[\], keys not in schema 1: \['gflops'\]"),
        (document({}, {"p50_ms": "fast"}), "row 1: p50_ms: expected float from 0 up, got 'fast'"),
        (document({"p50_ms": -1.0}), "row 0: p50_ms: expected float from 0 up, got -1.0"),
        (document({"p50_ms": float("nan")}), "row 0: p50_ms: expected float from 0 up, got nan"),
        (document({"batch": True}), "row 0: batch: expected int from 0 up, got True"),
        (document({"batch": 1.5}), "row 0: batch: expected int from 0 up, got 1.5"),
        (document({"unstable": 0}), "row 0: unstable: expected bool, got 0"),
        (document({"input_shape": [8, "3"]}), "row 0: input_shape: expected list"),
        (document({"samples_ms": "x"}), "row 0: samples_ms: expected list"),
    ],
)
def test_what_is_not_a_benchmark(source: Any, message: str, tmp_path: Path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(source))
    with pytest.raises(DotsZooError, match=f"bench.json: {message}"):
        write_report([path], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("content", [json.dumps(document()).encode()[:-20], b"", b"\xff\xfe\x00"])
def test_a_file_that_is_cut_off(content: bytes, tmp_path: Path):
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    with pytest.raises(DotsZooError, match="bench.json: not JSON, or only a part of it"):
        read_bench(path)
    with pytest.raises(DotsZooError, match="missing.json: cannot be read: No such file"):
        read_bench(tmp_path / "missing.json")


def test_other_suffixes(tmp_path: Path):
    with pytest.raises(DotsZooError, match="report.pdf: expected a name that ends in .html or .md"):
        write_report([document()], tmp_path / "report.pdf")


def test_raw_samples_are_read():
    kept = copy.deepcopy(document({"samples_ms": [33, 33.5]}))
    assert read_bench(kept).rows[0].samples_ms == [33, 33.5]
