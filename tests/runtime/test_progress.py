"""A bar on a terminal, lines in a log: what searches and trainings print is read off a pseudo-terminal."""

import io
import re
import sys
from typing import Any

import pytest
import timm

from dots_zoo.runtime.progress import ProgressDisplay
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.train.loop import fit
from dots_zoo.train.recipe import Recipe
from helpers.terminal import terminal
from helpers.toy_search import PLANTED_SPACE, toy_config, toy_data, toy_derivation

BAR = re.compile(r"(.+, epoch (\d+) of (\d+)): +(\d+) % \|.+\| (\S+) left")


def a_search(progress: bool) -> object:
    config = toy_config("darts", epochs=2, warm_up=1)
    stages = plan("darts", config, toy_derivation("pairs"), PLANTED_SPACE)
    return list(run_stages(stages, run_of(config.training, toy_data(64)), progress=progress))


def a_training(progress: bool) -> object:
    shape = {"channels": 4, "layers": 3, "in_chans": 1, "num_classes": 4}
    model: Any = timm.create_model("cell_cifar", genotype="darts_v1", **shape)
    recipe = Recipe(epochs=3, batch_size=32, evaluate_every=0)
    return fit(model, toy_data(64), recipe, progress=progress)


RUNS = {
    "search": (a_search, 8, r"epoch \d of 8, (operation|topology) \S+: loss \d\.\d+, accuracy .+ s"),
    "training": (a_training, 3, r"epoch \d of 3: loss \d\.\d+, accuracy .+ s"),
}


@pytest.mark.parametrize("columns", [60, 120])
@pytest.mark.parametrize("name", RUNS)
def test_on_a_terminal_one_bar_fits_the_width_and_the_lines_stand_above_it(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, epochs, line = RUNS[name]
    with terminal(columns) as (file, written):
        monkeypatch.setattr(sys, "stderr", file)
        run(True)
    bars = [match for frame in written.frames if (match := BAR.fullmatch(frame))]
    assert max(len(bar[0]) for bar in bars) == columns - 1  # the last column would move the cursor on
    assert {int(bar[2]) for bar in bars} == set(range(1, epochs + 1)) and {bar[3] for bar in bars} == {
        str(epochs)
    }
    assert int(bars[-1][4]) == 100 and re.fullmatch(r"[\d:]+", bars[-1][5])
    assert any("topology search" in bar[1] for bar in bars) == (name == "search")
    assert "\x1b[A" not in written.text  # one bar, in one place
    # The bar is gone in the end, and not one line has a rest of it.
    lines = [text for text in written.screen if text.startswith("epoch")]
    assert len(lines) == epochs and all(re.fullmatch(line, text) for text in lines)
    assert not [text for text in written.screen if "|" in text]
    assert not [frame for frame in written.frames if "|" in frame and not BAR.fullmatch(frame)]


@pytest.mark.parametrize("name", RUNS)
def test_a_log_has_one_line_an_epoch_and_no_carriage_return(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, epochs, line = RUNS[name]
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run(True)
    lines = [text for text in log.getvalue().splitlines() if text.startswith("epoch")]
    assert len(lines) == epochs and all(re.fullmatch(line, text) for text in lines)
    assert "\r" not in log.getvalue() and "|" not in log.getvalue()
    assert "epoch" not in capfd.readouterr().out  # results stand there


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_shown_where_it_is_not_wanted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(80) as (file, written):
        monkeypatch.setattr(sys, "stderr", file)
        RUNS[name][0](False)
    assert "epoch" not in written.text and "|" not in written.text


def test_no_bar_is_drawn_before_a_run_begins_and_none_stays_where_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with terminal(80) as (file, written):
        monkeypatch.setattr(sys, "stderr", file)
        with pytest.raises(RuntimeError), ProgressDisplay(4, done=2) as display:
            file.flush()
            before = written.text
            display.start_epoch("training, epoch 2 of 2")
            display.step()
            raise RuntimeError
    assert before == "" and any("epoch 2 of 2:  50 % |" in frame for frame in written.frames)
    assert "".join(written.screen) == ""
