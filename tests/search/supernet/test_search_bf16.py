"""bf16 autocast in a search: every kind of step computes in bfloat16 and trains float32."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from dots_zoo.search.methods.registry import Derivation, plan
from dots_zoo.search.stages.loop import run_stages
from dots_zoo.search.stages.stage import Figures, StepContext
from helpers.quiet_search import SPACE
from helpers.toy_search import toy_config, toy_data, toy_derivation, toy_training

BILEVEL = {"epochs": 1, "warm_up": 0}


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps the precision of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize(
    ("method", "changes", "derivation"),
    [
        ("dots", BILEVEL, toy_derivation("pairs")),
        ("darts", {**BILEVEL, "order": "second"}, Derivation()),
        ("dropnas", BILEVEL, Derivation()),
    ],
    ids=["bilevel and topology", "second order", "one level"],
)
def test_weights_and_logits_stay_float32_and_finite_and_move(
    method: str, changes: dict[str, Any], derivation: Derivation
) -> None:
    computed: set[torch.dtype] = set()
    config = toy_config(method, training=toy_training(precision="bf16", memory="lean"), **changes)
    turns: list[StepContext] = []

    def watched(step: Any) -> Any:
        def watch(context: StepContext) -> Figures:
            hook = context.search.supernet.cells[0].register_forward_hook(
                lambda module, args, output: computed.add(output.dtype)
            )
            turns.append(context)
            figures = step(context)
            hook.remove()
            return figures

        return watch

    stages = [replace(stage, step=watched(stage.step)) for stage in plan(method, config, derivation, SPACE)]
    epochs = list(run_stages(stages, config.training, toy_data(64), progress=False))
    assert all(0 < epoch.figures["loss"] < 10 for epoch in epochs)
    assert computed <= {torch.bfloat16, torch.float32} and torch.bfloat16 in computed
    search = turns[-1].search
    for tensor in [*search.supernet.parameters(), *search.logits.values(), *search.supernet.buffers()]:
        assert tensor.dtype in (torch.float32, torch.int64) and tensor.isfinite().all()
    assert all(logits.any() for logits in search.logits.values())
    for optimiser in (search.weights_optimiser, search.logits_optimiser):
        states = [value for state in optimiser.state.values() for value in state.values()]
        assert states and all(value.dtype == torch.float32 and value.isfinite().all() for value in states)
