"""The page holds what the JSON holds, hostile text stays text, and what is not a benchmark is refused."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from dots_zoo.export.measure.plot import Mark, front, names, pareto_svg, percentile_svg
from dots_zoo.export.measure.report import COLUMNS, write_report
from dots_zoo.export.measure.schema import dump, read_bench
from dots_zoo.runtime.errors import DotsZooError
from helpers.bench_document import CALM, document, row

HOSTILE = "<script>alert('x')</script>|$\\frac{\" onload=1 &amp; \x00模型\n"
WILD = [[10.0, 10.0], [14.0, 14.0]]  # medians 10 and 14: refused


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


def page_of(tmp_path: Path, *rows: dict[str, Any], **machine: Any) -> str:
    return write_report([document(*rows, **machine)], tmp_path / "report.html")[0].read_text()


def test_every_figure_is_on_the_page(tmp_path: Path):
    bench = tmp_path / "bench.json"
    bench.write_bytes(dump(document(row(host_times=[[40.0, 41.0], [40.5, 40.5]]))))
    path, rows, refused = write_report([bench], tmp_path / "report.html")
    texts = Page(path.read_text()).texts
    shown = [
        # 33, 33.25, 33.25, 33.5: p90 at index 2.7, p95 at 2.85, p99 at 2.97; deviations .25, 0, 0, .25
        *("my_model", "8", "33.250", "33.425", "33.462", "33.492", "0.204", "0.6%", "240.6"),
        *("40.500", "40.925", "4 in 0.13 s", "0.50", "62.1"),
        *("587,347,392", "1,174,694,784", "5,348,032", "8x3x224x320", "3", "17", "ok", "2.0e-06"),
        *("CPUExecutionProvider", "CPUExecutionProvider 321", "m.onnx", "0123456789ab"),
    ]
    assert [text for text in shown if text not in texts] == []
    for text in ("Some CPU @ 3 GHz", "12", "2", "1.2.3", "2026-01-02T03:04:05+00:00", "rounds 2, threads 3"):
        assert text in texts
    assert (rows, refused) == (1, 0) and "refused</strong>" not in path.read_text()


def test_a_page_without_its_plots_has_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_picture(*args: Any, **options: Any) -> None:
        raise RuntimeError("no font")

    whole = Page(page_of(tmp_path))
    monkeypatch.setattr(Figure, "savefig", no_picture)
    page = Page(page_of(tmp_path))
    assert "33.250" in page.texts and "svg" in dict(whole.tags) and "svg" not in dict(page.tags)
    assert set(caplog.messages) == {
        "latency report, plots of CPUExecutionProvider, 3 threads: left out (RuntimeError: no font)"
    }


def test_a_refused_row_says_why_and_shows_no_times(tmp_path: Path):
    good, bad = row(model="calm"), row(WILD, model="wild", macs=111222333)
    page = page_of(tmp_path, good, bad)
    assert "1 of 2 rows are refused" in page and page.count('<tr class="marked">') == 1
    reason = "refused: stability: medians of rounds lie 33% (device-resident) and 33% (end-to-end)"
    assert reason in page and "111,222,333" in page
    for figure in ("12.000", "14.000", "10.000", "666.7"):  # its p50, p95, fastest run and images a second
        assert figure not in page
    plots = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "calm" in plots and "wild" not in plots
    text = write_report([document(good, bad)], tmp_path / "report.md")[0].read_text()
    assert reason in text and "12.000" not in text


def test_a_report_of_refused_rows_only_has_no_plots(tmp_path: Path):
    page = page_of(tmp_path, row(parity_error=None, parity_tolerance=None))
    assert "<svg" not in page and "refused: parity: the file records no comparison" in page


def test_the_page_needs_nothing_from_outside_and_runs_one_script(tmp_path: Path):
    page = page_of(tmp_path, row(), row(batch=16, input_shape=[16, 3, 224, 320]), row(model="b", macs=1))
    tags = Page(page).tags
    assert {"link", "iframe", "object", "img"} & {tag for tag, _ in tags} == set()
    assert [attributes for tag, attributes in tags if tag == "script"] == [{}]
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert "script-src 'sha256-" in page and "unsafe-inline'; img" in page
    assert "currentColor" in page and "#010203" not in page  # the plots take the colours of the page


def test_plots_of_costs_batches_and_percentiles(tmp_path: Path):
    rows = [
        row(model=model, batch=batch, input_shape=[batch, 3, 8, 8], macs=macs)
        for model, macs in (("a", 10**8), ("b", 2 * 10**8))
        for batch in (8, 16)
    ]
    page = page_of(tmp_path, *rows, row(model="alone", threads=1))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert [caption.partition(",")[0] for caption in captions] == [
        "Latency against MACs",
        "Latency against parameters",
        "Latency against the batch",
        "Percentiles: p50 (dot)",
        "Percentiles: p50 (dot)",  # one row of its own number of threads: nothing to compare
    ]
    assert "<title>a: 33.2 ms at 8, 33.2 ms at 16</title>" in page
    assert "<title>b: 200 million MACs an image, 33.2 ms</title>" in page


def test_many_networks_are_spread_over_plots_of_one_scale(tmp_path: Path):
    def times(ms: float) -> list[list[float]]:
        return [[ms, ms], [ms, ms]]

    rows = [
        row(times(10.0 + i), model=f"m{i}", batch=batch, input_shape=[batch, 3, 8, 8])
        for i in range(17)
        for batch in (1, 8)
    ]
    page = page_of(tmp_path, *rows)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum(caption.startswith("Latency against the batch, ") for caption in captions) == 3  # 8 in each
    assert captions[-1].endswith("p99 (hair), 2 of 2")  # 24 rows in each
    titles = [re.findall(r"<title>(m\d+): [0-9.]+ ms at 1", svg) for svg in page.split("<svg")]
    assert ["m0", "m3", "m6", "m9", "m12", "m15"] in titles
    assert sum(len(labels) for labels in titles) == 17


def test_the_pareto_front_by_hand():
    marks = [Mark(1, 9, "a"), Mark(2, 9, "b"), Mark(2, 4, "c"), Mark(3, 5, "d"), Mark(4, 1, "e")]
    assert [mark.name for mark in front(marks)] == ["a", "c", "e"]
    svg = pareto_svg(marks, "x", "y")
    assert svg.count("<title>") == 5
    moved = pareto_svg([*marks[:2], Mark(2, 8.999, "c"), *marks[3:]], "x", "y")
    assert svg != moved


def test_noisy_rows_are_named_and_published(tmp_path: Path):
    noisy = [[30.0, 30.0, 38.0], [30.0, 30.0, 38.0]]  # the medians agree
    page = page_of(tmp_path, row(noisy, model="wild"))
    assert "noisy" in Page(page).texts and "refused</strong>" not in page and "30.000" in page
    calm, wild = (percentile_svg(read_bench(document(row(times))).rows, (10, 90)) for times in (CALM, noisy))
    assert calm != wild


def test_hostile_text_stays_text(tmp_path: Path):
    evil = document(row(model=HOSTILE, file=HOSTILE, sha256=HOSTILE, options={HOSTILE: HOSTILE}), row())
    for part in ("machine", "versions", "settings"):
        evil[part] = {HOSTILE: HOSTILE}
    evil["created"] = HOSTILE
    page = write_report([evil], tmp_path / "report.html")[0].read_text()
    tags = Page(page).tags
    assert [tag for tag, _ in tags].count("script") == 1 and "<script>alert" not in page
    assert "<script>alert('x')</script>" in "".join(Page(page).texts)
    assert all("onload" not in attributes for _, attributes in tags)
    text = write_report([evil], tmp_path / "report.md")[0].read_text()
    assert "<script" not in text and "\n&lt;script&gt;" not in text
    [line] = [line for line in text.splitlines() if line.startswith("| &lt;script")]
    assert len(re.findall(r"(?<!\\)\|", line)) == len(COLUMNS) + 1  # the name's own bar is escaped


def test_several_benchmarks_and_many_rows(tmp_path: Path):
    many = document(*(row(model=f"model_{i}", macs=10**7 * (1 + i % 7)) for i in range(50)))
    page = write_report([document(), many], tmp_path / "report.html")[0].read_text()
    assert page.count("<table>") == 2 and page.count("<tr>") == 1 + 1 + 1 + 50


def test_names_say_what_is_not_plain():
    rows = [
        row(model="a", file="a.onnx", sha256="a"),
        row(model="a", file="a_fused.onnx", sha256="b"),
        row(model="a", precision="int8", sha256="c"),
        row(model="b", engine="torch-compiled", provider_asked="cpu"),
        row(model="b", cuda_graph=True),
    ]
    labels = names(read_bench(document(*rows)).rows)
    assert labels == ["a.onnx", "a_fused.onnx", "a int8", "b torch-compiled", "b graph"]


def test_labels_are_cut_and_not_mathematics():
    svg = percentile_svg(
        read_bench(document(row(model="x" * 30 + "y" * 10), row(model="$a$"))).rows, (10, 90)
    )
    for label in ("x" * 10 + "...x" + "y" * 10, "$a$"):
        assert f">{label}, 8<" in svg


def test_markdown_table(tmp_path: Path):
    text = write_report([document()], tmp_path / "report.md")[0].read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 3
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    values = dict(zip(cells[0], cells[2], strict=True))
    assert (values["model"], values["p50 ms"], values["MACs"]) == ("my_model", "33.250", "587,347,392")
    assert "- cpu: Some CPU @ 3 GHz" in text


def changed(**changes: Any) -> dict[str, Any]:
    whole = document()
    whole["rows"][0] |= changes
    return whole


def timed(**changes: Any) -> dict[str, Any]:
    whole = document()
    whole["rows"][0]["resident"] |= changes
    return whole


def without(key: str) -> dict[str, Any]:
    whole = document()
    del whole["rows"][0][key]
    return whole


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], 'not a benchmark: expected a JSON object with "kind": "bench"'),
        ({"schema": 1, "kind": "demo"}, "not a benchmark"),
        ({**document(), "schema": 1}, "expected schema 2, got 1: run the bench again"),
        ({**document(), "rows": []}, "has no rows"),
        ({**document(), "rows": {}}, "rows is missing or of the wrong type"),
        ({**document(), "machine": None}, "machine is missing or of the wrong type"),
        ({**document(), "rows": [3]}, "row 0: expected an object, got 3"),
        (without("macs"), r"row 0: keys missing: \['macs'\], keys not in schema 2: \[\]"),
        (changed(gflops=1), r"row 0: keys missing: \[\], keys not in schema 2: \['gflops'\]"),
        (changed(resident=3), "row 0: resident: expected an object, got 3"),
        (timed(p50_ms="fast"), "row 0: resident: p50_ms: expected float from 0 up, got 'fast'"),
        (timed(p50_ms=-1.0), "row 0: resident: p50_ms: expected float from 0 up, got -1.0"),
        (timed(p50_ms=float("nan")), "p50_ms: expected float from 0 up, got nan"),
        (changed(batch=True), "row 0: batch: expected int from 0 up, got True"),
        (changed(batch=1.5), "row 0: batch: expected int from 0 up, got 1.5"),
        (changed(cuda_graph=0), "row 0: cuda_graph: expected bool, got 0"),
        (changed(input_shape=[8, "3"]), "row 0: input_shape: expected list"),
        (changed(nodes_by_provider={"a": "b"}), "row 0: nodes_by_provider: expected dict"),
        (timed(samples_ms=[3.0]), "resident: samples_ms: expected list"),
        (timed(samples_ms=[[]]), "resident: expected two samples or more, one a round or more, none of 0"),
        (timed(samples_ms=[[0.0, 0.0]]), "none of 0"),
        (timed(p50_ms=1.0), "row 0: resident.p50_ms is 1.0, and its samples give 33.25: edited?"),
        (timed(noisy=True), "row 0: resident.noisy is True, and its samples give False: edited?"),
        (changed(batch=4), "resident.throughput_per_s is"),
        (changed(parity_error=1.0), "row 0: failures do not follow from the rest of the row: edited?"),
        (changed(failures={"parity": "x"}), "row 0: failures do not follow"),
    ],
)
def test_what_is_not_a_benchmark(source: Any, message: str, tmp_path: Path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(source))
    with pytest.raises(DotsZooError, match=f"bench.json: .*{message}"):
        write_report([path], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("content", [dump(document())[:-20], b"", b"\xff\xfe\x00", b"[" * 100_000])
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


def test_the_file_has_a_line_a_row_and_reads_as_it_was():
    whole = document(row(), row(model="b"))
    assert json.loads(dump(whole)) == json.loads(json.dumps(whole))
    assert sum(line.startswith('{"model"') for line in dump(whole).decode().splitlines()) == 2
    assert read_bench(copy.deepcopy(whole)).rows[0].resident.samples_ms == CALM
