"""Random search: the control that every search is compared with (Li and Talwalkar, UAI 2019).

The logits are drawn once from the seed and stay; everything after them (derivation, topology search,
selection) is that of the other methods. With the DARTS rule every cell of the space that has two edges a node
is as likely as any other, where no operation stands on an edge twice.
"""

from dataclasses import dataclass, field, replace

import torch

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, require_at_least
from ..stages.operation_search import Numbers, operation_search
from ..stages.stage import Run, Search, Stage, StepIndex
from ..stages.steps import train_weights
from ..supernet import MacroName
from .darts import darts_training
from .method import Method


@dataclass(frozen=True)
class RandomSearchConfig:
    """Random search: logits drawn once from the seed, the control (UAI 2019).

    Args:
        epochs: of training the supernet under the drawn logits; 0 draws only, and is enough unless something
            later judges by its weights, as perturbation-based selection does.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        training: what the training loop needs.
    """

    epochs: int = 0
    macro: MacroName | None = None
    layers: int = 8  # as in DARTS
    channels: int = 16  # as in DARTS
    training: TrainingConfig = field(default_factory=darts_training)

    def __post_init__(self) -> None:
        require_at_least("", epochs=(self.epochs, 0), layers=(self.layers, 3), channels=(self.channels, 1))


def stages(config: RandomSearchConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return one decision, or one span on the training split; `after` epochs follow on the same cosine."""
    [drawing] = operation_search(
        Numbers(config.epochs, config.macro, config.layers, config.channels, config.training),
        space,
        after,
        train_weights,
        name="random",
    )
    initialise = drawing.initialise

    def draw(run: Run, before: Search | None, step_index: StepIndex) -> Search:
        search = initialise(run, before, step_index)
        with torch.no_grad():
            for name, logits in search.logits.items():
                logits.copy_(torch.randn(logits.shape, generator=step_index.generator(f"random {name}")))
        return search

    return (replace(drawing, initialise=draw, architecture_images=None),)


METHOD = Method(
    "random_search", RandomSearchConfig, stages, trains_weights=lambda config: bool(config.epochs > 0)
)
