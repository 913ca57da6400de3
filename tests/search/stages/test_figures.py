"""What the steps of an epoch report: each its own figures, the mean over those that gave one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.methods.registry import plan
from dots_zoo.search.stages.checkpoint import CheckpointManager
from dots_zoo.search.stages.loop import run_stages
from dots_zoo.search.stages.stage import Epoch, Figures, Stage, StepContext
from helpers.short_searches import DARTS, configuration, derivation
from helpers.toy_search import toy_data

STEPS = 4  # of an epoch


def uneven(context: StepContext) -> Figures:
    """The first step reports nothing, every second one `odd`, the last `late` as well."""
    step = context.step_index.step
    figures = {"odd": torch.tensor(float(step))} if step % 2 else {}
    figures |= {"even": torch.tensor(10.0 * step)} if step and not step % 2 else {}
    return figures | ({"late": torch.tensor(7.0)} if step == STEPS - 1 else {})


def epochs_of(step: object, folder: Path | None = None, stop_at: int | None = None) -> list[Epoch]:
    config = configuration("darts")
    stages: tuple[Stage, ...] = plan("darts", config, derivation("none", "magnitude"), DARTS)
    stages = tuple(replace(stage, step=step) for stage in stages)
    checkpoints = None if folder is None else CheckpointManager(folder, 0.0)
    given: list[Epoch] = []
    if checkpoints is not None and stop_at is not None:
        checkpoints.stop = lambda: checkpoints.last is not None and int(checkpoints.last.name[:8]) >= stop_at
    saved = checkpoints.load_latest() if checkpoints else None
    try:
        given.extend(
            run_stages(
                stages,
                config.training,
                toy_data(8 * STEPS),
                checkpoints=checkpoints,
                saved=saved,
                progress=False,
            )
        )
    except SystemExit:
        pass
    return given


def test_a_step_may_report_other_figures_than_the_step_before() -> None:
    [epoch] = epochs_of(uneven)
    assert epoch.figures["odd"] == 2.0 and epoch.figures["even"] == 20.0 and epoch.figures["late"] == 7.0


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_they_are_kept_where_a_search_stops_within_the_epoch(stop_at: int, tmp_path: Path) -> None:
    assert epochs_of(uneven, tmp_path, stop_at) == []
    [epoch] = epochs_of(uneven, tmp_path)
    assert {name: epoch.figures[name] for name in ("odd", "even", "late")} == {
        "odd": 2.0,
        "even": 20.0,
        "late": 7.0,
    }


def test_steps_that_report_nothing_are_an_epoch_without_figures_of_their_own() -> None:
    [epoch] = epochs_of(lambda context: {})
    assert "loss" not in epoch.figures and "learning_rate" in epoch.figures


def test_a_figure_that_is_not_finite_is_named_with_its_step() -> None:
    def breaking(context: StepContext) -> Figures:
        return {"late": torch.tensor(float("nan"))} if context.step_index.step == 2 else {}

    with pytest.raises(DotsZooError, match="epoch 0, step 2: expected a finite late, got nan"):
        epochs_of(breaking)
