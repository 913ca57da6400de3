"""What a person sees of a search on digits: a line an epoch, metrics.jsonl, TensorBoard, the page."""

import contextlib
import io
import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import timm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dots_zoo.commands.cli import main
from dots_zoo.genotype import load_genotype, to_text
from dots_zoo.macs import count
from dots_zoo.search.methods.registry import METHODS

SEARCH = (
    "search dots --data digits --train-fraction 0.2 --space S2 --groups one --epochs 2 --warm-up 1 "
    "--layers 3 --topology-search.epochs 2 --topology-search.layers 3 --channels 2 --training.batch-size 72"
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


def test_a_line_an_epoch_has_the_stage_the_loss_and_the_entropies(watched) -> None:  # type: ignore[no-untyped-def]
    out, told = watched
    shown = [line for line in told.splitlines() if line.startswith("epoch")]
    lines = lines_of(out)
    assert len(shown) == len(lines) == 4 and "\r" not in told
    for text, line in zip(shown, lines, strict=True):
        assert text.startswith(f"epoch {line['epoch'] + 1} of 4, {line['stage']}: loss {line['loss']:.3f}, ")
        assert f"accuracy {100 * line['accuracy']:.1f} %" in text
    last = lines[-1]
    mean = (last["entropy.beta.normal"] + last["entropy.beta.reduce"]) / 2
    assert f"entropy of the edges {mean:.2f}" in shown[-1]


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
    shown = re.findall(r'<figure[^>]*><img alt="([^"]+)"', page)
    assert shown[:7] == [
        "the cell that was found",
        *("loss", "accuracy", "entropy of the weights (nats; 0: decided)", "operations of the cells"),
        *("the normal cell, epoch by epoch", "the reduction cell, epoch by epoch"),
    ]
    for cell in ("normal", "reduction"):
        assert f"weights of the edges of the {cell} cell, epochs 3 to 4" in shown
        assert sum(f"weights of the operations of the {cell} cell" in caption for caption in shown) == 2
    assert len(shown) == 7 + 2 + 4


def test_the_page_opens_with_a_summary_in_words(watched) -> None:  # type: ignore[no-untyped-def]
    out = watched[0]
    run, lines = json.loads((out / "run.json").read_text()), lines_of(out)
    text = unescape(re.sub(r"<[^>]+>", " ", (out / "report.html").read_text().partition("<body>")[2]))
    opening = text.partition("How the search went")[0]
    assert run["data"] == {"images": 288, "input_size": [1, 8, 8], "classes": 10}
    assert "dots searched a cell on digits (288 training images of 8x8 pixels in grey, 10 classes)" in opening
    assert "with seed 0 in " in opening and METHODS["dots"].title in opening
    # The network is the one that `dots-zoo train` builds, counted as everywhere.
    model = timm.create_model("cell_cifar", genotype=str(out / "genotype.json"), in_chans=1, num_classes=10)
    costs = count(model, (1, 8, 8))
    assert run["network"]["params"] == costs.params and run["network"]["macs"] == costs.macs
    assert (
        f"cell_cifar: {costs.params / 1e6:.3g} million parameters, {costs.macs / 1e6:.3g} million" in opening
    )
    assert f"named {100 * lines[-1]['accuracy']:.1f} % of the training images" in opening
    assert f"to {lines[-1]['entropy.beta.normal']:.2f} nats" in opening
    assert f"Of 16 edges {lines[-1]['parametric']:.0f} have weights of their own" in opening
    for key in ("entropy.", "parametric", "architecture_loss", "config_sha256", "alpha.", "beta."):
        assert key not in text


def test_the_genotype_and_the_next_command_can_be_copied_whole(watched) -> None:  # type: ignore[no-untyped-def]
    out = watched[0]
    page = (out / "report.html").read_text()
    command, genotype = map(
        unescape, re.findall(r'class="copy">copy</button><pre>(.*?)</pre>', page, re.DOTALL)
    )
    assert load_genotype(genotype).cells == load_genotype(out / "genotype.json").cells
    words = shlex.split(command)
    assert words[:5] == ["dots-zoo", "train", str(out), "--data", "digits"]
    short = [*words[1:-1], str(out.parent / "net"), "--epochs", "4", "--channels", "2", "--layers", "3"]
    assert main(short) == 0
