"""The demo end to end at a small size: what it writes, and that the numbers in it are those of the files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from accelerate import Accelerator
from markupsafe import escape
from matplotlib.figure import Figure

from dots_zoo.commands.demo import NAME, demo, summary
from dots_zoo.commands.demo_cells import DATA, Settings, compare, cost, nearest, random_cells, verdicts
from dots_zoo.commands.demo_page import page as render
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.genotype import load_genotype
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train.score import score

pytestmark = pytest.mark.processes

SMALL = Settings(channels=4, layers=3, epochs=1, candidates=6, bench_seconds=0.01)
SEARCH = (
    *("--epochs", "2", "--warm-up", "1", "--topology-search.epochs", "2", "--topology-search.layers", "3"),
    *("--channels", "2", "--training.batch-size", "256"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    demo(out, 0, SMALL, SEARCH)
    return out


def test_the_numbers_are_those_of_the_files(folder: Path) -> None:
    result = json.loads((folder / "demo.json").read_text())
    assert result["finished"] and result["genotype"].startswith("Genotype(normal=")
    found = load_genotype(folder / "search/genotype.json")
    assert load_genotype(result["genotype"]).cells == found.cells
    own, control, *plain = result["accuracies"]
    data = load_data(DataOptions(data=DATA))
    model = timm.create_model(NAME, pretrained=True)
    assert model.genotype == found
    assert own["accuracy"] == score(model, data, Accelerator()).accuracy
    assert own["params"] == sum(p.numel() for p in model.parameters())
    assert load_genotype(folder / "random.json").cells != found.cells
    assert [row["name"] for row in plain] == ["3 nearest neighbours", "logistic regression"]
    assert all(0.3 < row["accuracy"] < 0.7 for row in plain)  # hard: one digit in ten is right by chance
    assert result["comparison"]["difference"] == pytest.approx(own["accuracy"] - control["accuracy"])
    assert cost(load_genotype(folder / "random.json"), SMALL) == (control["params"], control["macs"])
    assert result["parity"]["error"] <= 1e-3
    assert {row["macs"] for row in result["bench"]["rows"]} == {own["macs"]}


def test_the_page_shows_them_with_the_pictures_inside(folder: Path) -> None:
    result, page = json.loads((folder / "demo.json").read_text()), (folder / "report.html").read_text()
    for row in result["accuracies"]:
        assert f"{100 * row['accuracy']:.2f} %" in page
    assert "1x8x8" in page and "point" in page
    assert page.count("<img ") == 1 + 4 + 2  # the cell, four curves, the course of two cells
    assert all(escape(sentence) in page for sentence in verdicts(result))
    assert "http" not in page.replace("http-equiv", "")
    shown = summary(result, folder)
    assert (
        str(folder / "report.html") in shown and f"{100 * result['accuracies'][0]['accuracy']:.2f} %" in shown
    )


def test_the_same_seed_finds_the_same_cell_and_replaces_an_earlier_demo_without_pictures_if_need_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_picture(*args: object, **options: object) -> None:
        raise RuntimeError("no font")

    before = load_genotype(folder / "search/genotype.json")
    threads = torch.get_num_threads()
    monkeypatch.setattr(Figure, "savefig", no_picture)
    result = demo(folder, 0, replace(SMALL, channels=2), SEARCH)
    assert "<img " not in (folder / "report.html").read_text() and not (folder / "cell.svg").exists()
    assert "cell.svg" not in summary(result, folder) and "report.html" in summary(result, folder)
    assert torch.get_num_threads() == threads
    assert load_genotype(folder / "search/genotype.json").cells == before.cells
    assert json.loads((folder / "demo.json").read_text())["settings"]["channels"] == 2


def test_the_page_refuses_the_rows_that_report_refuses(folder: Path) -> None:
    result = json.loads((folder / "demo.json").read_text())
    page = (folder / "report.html").read_text()
    trusted = [row["resident"]["p50_ms"] for row in result["bench"]["rows"] if not row["failures"]]
    assert all(f"<td>{time:.3f}</td>" in page for time in trusted)
    row = result["bench"]["rows"][1]
    reason = f"differs from torch by 1 of the movement, {row['parity_tolerance']:g} allowed"
    row |= {"parity_error": 1.0, "failures": {"parity": reason, **row["failures"]}}
    assert f"<td>{row['resident']['p50_ms']:.3f}</td>" not in render(result, folder)
    assert "refused: " in render(result, folder) and "rows are refused</strong>" in render(result, folder)
    assert "rows of latency are refused" in summary(result, folder)


def test_the_random_cell_is_the_one_nearest_in_cost() -> None:
    cells = random_cells(3, SMALL)
    assert random_cells(3, SMALL) == cells and len({text for text, *_ in cells}) == SMALL.candidates
    for text, params, macs in cells:
        assert cost(load_genotype(text), SMALL) == (params, macs)
        assert nearest(cells, params, macs).cells == load_genotype(text).cells


def test_a_difference_is_judged_by_digits_and_not_by_their_renderings() -> None:
    control = torch.zeros(4 * 10, dtype=torch.bool)
    found = control.clone().view(4, 10)
    found[:, :4] = True  # four of ten digits, in every rendering
    comparison = compare(found.flatten(), control)
    assert comparison.difference == pytest.approx(0.4)
    assert comparison.standard_error == pytest.approx((0.4 * 0.6 * 10 / 9 / 10) ** 0.5)
    assert comparison.beyond_chance and not compare(control, control).beyond_chance


@pytest.mark.parametrize(
    ("difference", "neighbours", "words"),
    [
        (0.03, 0.5, ("3.0 points above", "the search pays here", "hard enough")),
        (-0.03, 0.5, ("3.0 points below", "the search does not pay here", "hard enough")),
        (0.005, 0.88, ("0.5 points above", "a tie", "too easy to tell cells apart")),
    ],
)
def test_the_verdict_says_what_the_figures_tell(
    difference: float, neighbours: float, words: tuple[str, ...]
) -> None:
    rows = [
        {"accuracy": 0.9, "macs": 110},
        {"accuracy": 0.9 - difference, "macs": 100},
        {"accuracy": neighbours},
    ]
    comparison = {"difference": difference, "standard_error": 0.01, "beyond_chance": abs(difference) > 0.02}
    text = " ".join(verdicts({"accuracies": rows, "comparison": comparison}))
    assert all(word in text for word in words) and "1.10 times its MACs" in text


def test_other_people_s_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DotsZooError, match="expected a new or empty folder or an earlier demo's"):
        demo(tmp_path, 0, SMALL, SEARCH)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
