"""The demo end to end at a small size: what it writes, and that the numbers in it are those of the files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure

from dots_zoo.commands.demo import NAME, Settings, demo, summary
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.genotype import load_genotype
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.train.score import score

pytestmark = pytest.mark.processes

SMALL = Settings(channels=4, layers=3, epochs=1, bench_seconds=0.01)
SEARCH = (
    *("--epochs", "2", "--warm_up", "1", "--topology_search.epochs", "2", "--topology_search.layers", "3"),
    *("--channels", "2", "--training.batch_size", "256"),
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
    data = load_data(DataOptions())
    model = timm.create_model(NAME, pretrained=True)
    assert model.genotype == found
    assert own["accuracy"] == score(model, data, Accelerator()).accuracy
    assert own["params"] == sum(p.numel() for p in model.parameters())
    assert control["accuracy"] > 0.1 and load_genotype(folder / "random.json").cells != found.cells
    assert [row["name"] for row in plain] == ["3 nearest neighbours", "logistic regression"]
    assert all(0.95 < row["accuracy"] <= 1 for row in plain)
    assert result["parity"]["error"] <= 1e-3
    assert {row["macs"] for row in result["bench"]["rows"]} == {own["macs"]}


def test_the_page_shows_them_with_the_pictures_inside(folder: Path) -> None:
    result, page = json.loads((folder / "demo.json").read_text()), (folder / "report.html").read_text()
    for row in result["accuracies"]:
        assert f"{100 * row['accuracy']:.2f} %" in page
    assert "8x8" in page and "too easy to rank cells" in page
    assert page.count("<img ") == 1 + len(list((folder / "search/plots").glob("*.png"))) >= 3
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


def test_other_people_s_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DotsZooError, match="expected a new or empty folder or an earlier demo's"):
        demo(tmp_path, 0, SMALL, SEARCH)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
