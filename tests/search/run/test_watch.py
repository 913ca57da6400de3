"""What a person sees of a search on digits: the progress line, metrics.jsonl, TensorBoard, the page."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dots_zoo.commands.cli import main
from dots_zoo.genotype import load_genotype, to_text

SEARCH = (
    "search dots --data digits --train_fraction 0.2 --space S2 --groups one --epochs 2 --warm_up 1 "
    "--layers 3 --topology_search.epochs 2 --topology_search.layers 3 --channels 2 --training.batch_size 72"
)
Line = dict[str, Any]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a DOTS search, and what it told while it ran."""
    out, told = tmp_path_factory.mktemp("watched") / "run", io.StringIO()
    with contextlib.redirect_stderr(told):
        assert main([*SEARCH.split(), "--out", str(out)]) == 0
    return out, told.getvalue()


def lines_of(out: Path) -> list[Line]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_progress_line_has_the_step_the_time_left_the_loss_and_the_entropies(watched) -> None:  # type: ignore[no-untyped-def]
    out, told = watched
    shown = told.split("\r")
    last = lines_of(out)[-1]
    for name in ("loss", "accuracy", "entropy.alpha.normal", "entropy.beta.reduce"):
        assert f"{name}={last[name]:.3f}" in shown[-1]
    steps = [re.search(r"(\d+)/(\d+) \[\S+<(\S+), +\S+(step/s|s/step)", line) for line in shown]
    found = [match.groups() for match in steps if match]
    assert {total for _, total, *_ in found} == {found[-1][0]}  # of all stages, and all of them done
    assert all(re.fullmatch(r"[\d:]+", left) for done, _, left, _ in found if int(done))
    assert {line.partition(":")[0] for line in shown} >= {"operation search", "topology search"}


def test_every_line_has_what_is_watched(watched) -> None:  # type: ignore[no-untyped-def]
    lines = lines_of(watched[0])
    always = {"loss", "accuracy", "entropy.alpha.normal", "entropy.alpha.reduce", "skips", "parametric"}
    assert [always <= line.keys() for line in lines] == [True] * 4  # two warm-ups, two searches
    [searched] = [line for line in lines if "architecture_loss" in line]
    assert "architecture_accuracy" in searched and lines[-1]["temperature"] > 0
    assert {"entropy.beta.normal", "entropy.beta.reduce"} <= lines[-1].keys()
    for number, line in enumerate(lines):
        cell = load_genotype(watched[0] / "genotypes" / f"{number:03d}.json")
        assert line["genotype"] == to_text(cell)
        operations = [edge.op for kind in cell.cells.values() for edge in kind.edges]
        assert line["skips"] == operations.count("skip_connect") and line["parametric"] + line["skips"] == 16


def test_tensorboard_shows_every_figure_of_every_line_and_the_cell(watched) -> None:  # type: ignore[no-untyped-def]
    out, _ = watched
    board = EventAccumulator(str(out / "tensorboard")).Reload()
    lines = lines_of(out)
    figures = {name for line in lines for name, value in line.items() if isinstance(value, float)}
    assert set(board.Tags()["scalars"]) == figures and {"temperature", "skips", "parametric"} <= figures
    for name in figures:
        expected = [(line["epoch"], line[name]) for line in lines if name in line]
        assert [(event.step, event.value) for event in board.Scalars(name)] == [
            (epoch, pytest.approx(value, rel=1e-6)) for epoch, value in expected
        ]
    [tag] = board.Tags()["tensors"]
    texts = [event.tensor_proto.string_val[0].decode() for event in board.Tensors(tag)]
    assert tag == "genotype/text_summary" and texts == [line["genotype"] for line in lines]


def test_the_page_shows_the_cell_as_it_changed_and_every_weight(watched) -> None:  # type: ignore[no-untyped-def]
    page = (watched[0] / "report.html").read_text()
    shown = re.findall(r'<figure class="scroll"><img alt="([^"]+)"', page)
    assert shown[:2] == ["the cells that were found", "losses, accuracies, entropies (nats), operations"]
    assert sum("after every line of the log" in caption for caption in shown) == 2
    assert {"beta.normal", "beta.reduce"} <= set(shown)
    assert [caption for caption in shown if caption.startswith("alpha.")] == sorted(
        path.stem for path in (watched[0] / "plots").glob("alpha.*.png")
    )
