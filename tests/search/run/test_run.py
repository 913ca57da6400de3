import itertools
import json
from html import unescape

import pytest
import torch
from matplotlib.figure import Figure

import dots_zoo
from dots_zoo.genotype import load_genotype, to_text, validate
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.run.run import run_search
from dots_zoo.search.run.summary import summarise
from dots_zoo.search.space.named import S6, named_space
from helpers.toy_search import PLANTED_SPACE, toy_config, toy_data, toy_derivation, toy_training

SHORT = {"epochs": 2, "warm_up": 1, "groups": "one"}


def run(out, method="dots", derivation=None, space=PLANTED_SPACE, **changes):
    config = toy_config(method, **{**SHORT, **changes})
    return run_search(
        method, config, derivation or toy_derivation("pairs"), space, toy_data(), out, progress=False
    )


def run_darts(out):
    """One epoch."""
    config = toy_config("darts", epochs=1, warm_up=0)
    return run_search("darts", config, toy_derivation(), PLANTED_SPACE, toy_data(), out, progress=False)


def test_a_run_is_a_folder_that_says_what_was_found_and_how(tmp_path):
    out = tmp_path / "run"
    found = run(out)
    assert load_genotype(out / "genotype.json") == found
    validate(found)
    assert sorted(path.name for path in out.iterdir()) == [
        *("checkpoint", "config.yaml", "genotype.json", "genotypes", "metrics.jsonl", "plots"),
        *("report.html", "run.json", "stages", "tensorboard"),
    ]
    provenance = load_genotype(out / "genotype.json").provenance
    assert provenance["method"] == "dots" and provenance["dataset"] == "toy" and provenance["seed"] == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(8))
    assert {"loss", "accuracy", "temperature", "entropy.beta.normal", "learning_rate"} <= set(lines[7])
    assert provenance["metrics"]["loss"] == lines[7]["loss"]
    cells = [load_genotype(out / "genotypes" / f"{number:03d}.json") for number in range(8)]
    assert {cell.space for cell in cells} == {"darts"} and cells[7] == found
    facts = json.loads((out / "run.json").read_text())
    assert facts["versions"]["torch"] in torch.__version__ and facts["wall_seconds"] > 0
    assert facts["config_sha256"] == provenance["config_sha256"]
    assert list((out / "tensorboard").iterdir())
    plots = {path.name for path in (out / "plots").iterdir()}
    assert {"alpha.normal.1.png", "alpha.normal.2.png", "beta.normal.png", "beta.reduce.png"} <= plots
    assert {"cell.png", "curves.loss.png", "changes.normal.png", "changes.reduce.png"} <= plots
    page = (out / "report.html").read_text()
    assert page.count("<img ") == len(plots) and page.count("src=") == page.count('src="data:image/png')
    assert facts["config_sha256"] in page and to_text(found) in unescape(page)
    operations = [edge.op for cell in found.cells.values() for edge in cell.edges]
    assert lines[7]["parametric"] == operations.count("sep_conv_3x3") and lines[7]["skips"] == 0
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def no_picture(*args, **options):
    raise RuntimeError("no\nfont")


def test_a_search_without_pictures_and_without_git_has_its_cell_and_its_page(tmp_path, monkeypatch, caplog):
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    monkeypatch.setattr(dots_zoo, "__file__", str(tmp_path / "checkout" / "dots_zoo" / "__init__.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Figure, "savefig", no_picture)
    out = tmp_path / "run"
    found = run_darts(out)
    assert load_genotype(out / "genotype.json") == found
    facts = json.loads((out / "run.json").read_text())
    assert facts["git_commit"] is None and facts["config_sha256"] == found.provenance["config_sha256"]
    page = (out / "report.html").read_text()
    assert to_text(found) in unescape(page) and "<img " not in page and not list((out / "plots").iterdir())
    commit, *pictures = caplog.messages
    assert commit.startswith("git_commit of run.json: left out (FileNotFoundError: ") and "git" in commit
    curves = (f"curves.{panel}" for panel in ("loss", "accuracy", "entropy", "operations"))
    names = ("cell", *curves, "changes.normal", "changes.reduce", "alpha.normal", "alpha.reduce")
    assert pictures == [f"{out / 'plots' / name}.png: left out (RuntimeError: no font)" for name in names]


def test_the_cell_is_there_before_the_first_picture(tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_darts(tmp_path / "run")
    validate(load_genotype(tmp_path / "run" / "genotype.json"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["method"] == "darts"


def test_a_search_in_nas_bench_201_gives_a_cell_of_that_space(tmp_path):
    out = tmp_path / "run"
    config = toy_config("darts", epochs=1, warm_up=0, channels=2, training=toy_training())
    table = tmp_path / "table.csv"
    cells = itertools.product(S6, repeat=6)
    form = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
    table.write_text("arch,c10_test\n" + "".join(f"{form.format(*cell)},93.5\n" for cell in cells))
    found = run_search(
        "darts", config, toy_derivation(), "S6", toy_data(64), out, table=table, progress=False
    )
    validate(found)
    assert found.space == "nasbench201" and len(found.cell.edges) == 6
    assert found.provenance["metrics"]["table.c10_test"] == 93.5
    page = (out / "report.html").read_text()
    assert "The cell in NAS-Bench-201" in page and "<td>c10 test</td><td>93.5</td>" in page
    assert "  c10 test: 93.5" in summarise(out).lines()
    assert "space: S6" in (out / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        (
            named_space("S4"),
            {"groups": "v1"},
            "groups: expected noise of the normal cell in exactly one group",
        ),
        (
            PLANTED_SPACE,
            {"training": toy_training(batch_size=129)},
            "at least one batch of 129 images, got 128",
        ),
        ("S5", {}, "space: expected one of S0"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(space, changes, message, tmp_path):
    with pytest.raises(DotsZooError, match=message):
        run(tmp_path / "run", space=space, **changes)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        DotsZooError,
        match="expected a new or an empty folder for the run, got one that holds ",
    ):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_table_is_refused_where_the_space_has_no_cells_of_it(tmp_path):
    with pytest.raises(DotsZooError, match="table: expected the space S6, whose cells it holds, got S2"):
        run_search("darts", toy_config("darts"), toy_derivation(), "S2", toy_data(), tmp_path / "run",
               table=tmp_path / "t.csv", progress=False)  # fmt: skip
    assert not list(tmp_path.iterdir())
