"""Fixed alpha: a supernet whose logits never move (Wang et al., DARTS-PT, ICLR 2021, Sec. 6).

All operations weigh the same while the weights train, so the logits carry no information: the choice is left
to perturbation-based selection. With magnitude selection all alternatives are equal and the first is taken,
which is the control that the logits of other methods are compared with.
"""

from dataclasses import dataclass, field, replace

from ..space.space import SearchSpace
from ..stages.config import TrainingConfig, check_span
from ..stages.operation_search import Numbers, operation_search
from ..stages.stage import Stage
from ..stages.steps import train_weights
from ..supernet import MacroName
from .darts import darts_training
from .method import Method


@dataclass(frozen=True)
class FixedAlphaConfig:
    """Fixed alpha: weights train, logits stay at zero (DARTS-PT, ICLR 2021).

    Args:
        epochs: of the supernet's training.
        macro: macro-architecture of the supernet; if not given that of a network for images of the size.
        layers: number of its cells.
        channels: width of its first cells.
        training: what the training loop needs.
    """

    epochs: int = 50  # as in DARTS
    macro: MacroName | None = None
    layers: int = 8  # as in DARTS
    channels: int = 16  # as in DARTS
    training: TrainingConfig = field(default_factory=darts_training)

    def __post_init__(self) -> None:
        check_span(self.epochs, 0, self.layers, self.channels)


def stages(config: FixedAlphaConfig, space: SearchSpace, after: int) -> tuple[Stage, ...]:
    """Return one span on the training split; selection can use the other. `after` epochs share the cosine."""
    [training] = operation_search(
        Numbers(config.epochs, config.macro, config.layers, config.channels, config.training),
        space,
        after,
        train_weights,
        name="supernet",
    )
    return (replace(training, architecture_images=None),)


METHOD = Method("fixed_alpha", FixedAlphaConfig, stages)
