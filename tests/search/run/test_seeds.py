"""Several seeds of one search: hand-counted agreement, and a folder a seed."""

import json
import statistics
from pathlib import Path

import pytest

from dots_zoo.commands.cli import main
from dots_zoo.genotype import load_genotype
from dots_zoo.search.run.seeds import agreement, spread

CELL = {"edges": [[2, 0, "skip_connect"], [2, 1, "sep_conv_3x3"]], "concat": [2]}
OTHER = {"edges": [[2, 0, "skip_connect"], [2, 1, "sep_conv_5x5"]], "concat": [2]}


def genotype(normal: dict[str, object], reduce: dict[str, object], path: Path):
    path.write_text(
        json.dumps({"schema": 1, "name": "a", "space": "darts", "normal": normal, "reduce": reduce})
    )
    return load_genotype(path)


def test_agreement_is_the_share_of_edges_in_common_over_all_pairs(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    same, half, none = (genotype(CELL, CELL, path), genotype(CELL, OTHER, path), genotype(OTHER, OTHER, path))
    assert agreement([same, same, same]) == 1
    assert agreement([same, half]) == 3 / 4  # one of four edges is another
    assert agreement([same, half, none]) == pytest.approx((3 / 4 + 2 / 4 + 3 / 4) / 3)


def test_spread_is_of_a_sample() -> None:
    assert spread([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": pytest.approx(7**0.5)}


def test_every_seed_has_its_folder_and_the_spread_is_that_of_their_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "search random_search --data digits --layers 3 --epochs 1 --channels 2 --seeds 2".split()
    out = tmp_path / "runs"
    assert main([*words, "--training.batch-size", "360", "--training.seed", "4", "--out", str(out)]) == 0
    runs = [out / "seed4", out / "seed5"]
    lines = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in runs]
    summary = json.loads((out / "seeds.json").read_text())
    assert summary["seeds"] == [4, 5] and [out / run for run in summary["runs"]] == runs
    losses = [line["loss"] for line in lines]
    assert losses[0] != losses[1]
    assert summary["figures"]["loss"] == {"mean": statistics.mean(losses), "std": statistics.stdev(losses)}
    assert summary["edges_agree"] == agreement([load_genotype(run / "genotype.json") for run in runs])
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last.startswith("2 searches: loss ") and f"% of their edges; written to {out / 'seeds.json'}" in last
    )
