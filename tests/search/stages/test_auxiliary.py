import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.stages.auxiliary_skip import AuxiliaryConfig, auxiliary_weight, with_auxiliary
from dots_zoo.search.stages.stage import Relaxation, StepIndex
from dots_zoo.search.supernet import Mixture

HALF = 0.5**0.5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AuxiliaryConfig(), [1, 0.75, 0.5, 0.25, 0, 0]),
        (AuxiliaryConfig(weight=0.4), [0.4, 0.3, 0.2, 0.1, 0, 0]),
        (AuxiliaryConfig(decay="cosine"), [1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0, 0]),
        (AuxiliaryConfig(decay="step", decay_epoch=3), [1, 1, 1, 0, 0, 0]),
        (AuxiliaryConfig(decay="hold", decay_epochs=3), [1, 1, 1, 0.5, 0, 0]),
        (AuxiliaryConfig(decay="hold"), [1, 0.75, 0.5, 0.25, 0, 0]),  # no longer than the search
        (AuxiliaryConfig(branch="none"), [0] * 6),
    ],
)
def test_the_weight_falls_to_zero_over_five_epochs_and_stays_there(config, expected):
    assert [auxiliary_weight(config, epoch, 5) for epoch in range(6)] == pytest.approx(expected)


def test_a_search_of_one_epoch_has_the_branch():
    assert auxiliary_weight(AuxiliaryConfig(), 0, 1) == 1.0


def test_it_stands_beside_any_relaxation_from_the_epoch_that_it_starts_at():
    table, active = torch.rand(2, 3), (frozenset({0}), frozenset({1}))
    plain = Relaxation(
        compute_weights=lambda logits, step_index: {"alpha.normal": table},
        build_mixture=lambda weights, step_index: Mixture(
            {"normal": weights["alpha.normal"]}, {"normal": active}
        ),
        schedules=lambda step_index: {"temperature": 3.0},
    )
    relaxation = with_auxiliary(lambda search: plain, AuxiliaryConfig(), 5, start=10)(None)
    mixture = relaxation.mixture({}, StepIndex(0, 12))
    assert mixture.auxiliary == 0.5 and mixture.operations["normal"] is table
    assert relaxation.schedules(StepIndex(0, 13)) == {"temperature": 3.0, "auxiliary_weight": 0.25}
    assert relaxation.mixture({}, StepIndex(0, 15)).auxiliary == 0.0


def test_a_negative_weight_is_refused():
    with pytest.raises(DotsZooError, match=r"auxiliary.weight: expected 0 or more, got -1"):
        AuxiliaryConfig(weight=-1)
