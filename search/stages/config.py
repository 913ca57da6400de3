"""The hyperparameters that every search has; those of a method are in its file.

Defaults are those of DOTS for CIFAR-10; every field is also an option and a YAML key.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from dots_zoo.data.augment import Augmentation
from dots_zoo.runtime.errors import DotsZooError

from ..supernet import MacroName, Memory


@dataclass(frozen=True)
class WeightsConfig:
    """SGD with a cosine over all epochs of the search, for the weights of the supernet.

    Args:
        learning_rate: of SGD, at the first epoch.
        learning_rate_end: of SGD, after the last epoch.
        momentum: of SGD.
        weight_decay: of SGD.
        clip: largest norm of a gradient step.
    """

    learning_rate: float = 0.025  # supplementary, Sec. 1
    learning_rate_end: float = 0.001  # supplementary, Sec. 1
    momentum: float = 0.9  # supplementary, Sec. 1
    weight_decay: float = 3e-4  # supplementary, Sec. 1
    clip: float = 5.0  # the paper names it for retraining only; the public code searches with it too


@dataclass(frozen=True)
class LogitsConfig:
    """Adam at a constant rate, for the architecture logits.

    Args:
        learning_rate: of Adam.
        betas: of Adam.
        weight_decay: of Adam.
    """

    learning_rate: float = 1e-4  # supplementary, Sec. 1; the public code has 3e-4
    betas: tuple[float, float] = (0.9, 0.999)  # not in the paper; the public code's
    weight_decay: float = 1e-3  # supplementary, Sec. 1


BATCH = 64  # as in DARTS and in the public code
BATCHES = 8  # in a split at least, where the batch size is not given


class SupernetConfig(Protocol):
    """Fields that the configuration of every method has, for its supernets."""

    @property
    def macro(self) -> MacroName | None: ...

    @property
    def channels(self) -> int: ...

    @property
    def training(self) -> "TrainingConfig": ...


@dataclass(frozen=True)
class TrainingConfig:
    """Options of the training loop, whatever the method.

    Args:
        seed: every draw of the run derives from it.
        batch_size: images in a step; an incomplete last batch is left out. If not given 64, or fewer where
            the splits have fewer than 8 such batches.
        augmentation: how training images are varied; DARTS cuts out squares for retraining only.
        class_fractions: shares of every class's images in the training and in the validation split; if not
            given the splits are random halves of the images.
        precision: "bf16" runs the supernet under autocast.
        memory: what a step keeps for its backward pass. fast keeps what is expensive to recompute, lean less,
            checkpoint the outputs of the cells only; the results are the same.
        kernels: on compiles loops that make a step on a CPU several times as fast, off computes as the papers
            write it, auto compiles where a search is long enough; the results are the same up to rounding.
        weights: SGD for the weights of the supernet.
        logits: Adam for the architecture logits.
    """

    seed: int = 0
    batch_size: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)  # crop and flip, as in DARTS
    class_fractions: tuple[float, float] | None = None
    precision: Literal["no", "bf16"] = "no"
    memory: Memory = "fast"
    kernels: Literal["auto", "on", "off"] = "auto"
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            require_at_least("training.", batch_size=(self.batch_size, 1))


def require_at_least(place: str, **limits: tuple[float, float]) -> None:
    """Raise DotsZooError if a value, given as name=(value, least), is too small."""
    for name, (value, limit) in limits.items():
        if value < limit:
            raise DotsZooError(f"{place}{name}: expected {limit} or more, got {value}")


def check_span(epochs: int, warm_up: int, layers: int, channels: int) -> None:
    """Raise DotsZooError if an operation search of this length, depth and width cannot be built."""
    require_at_least("", epochs=(epochs, 1), warm_up=(warm_up, 0), layers=(layers, 3), channels=(channels, 1))
    if warm_up >= epochs:
        raise DotsZooError(f"warm_up: expected fewer epochs than the {epochs} of the search, got {warm_up}")


def with_batch(training: TrainingConfig, images: int) -> TrainingConfig:
    """Return the options with a batch size for splits of so many images: a power of two up to 64."""
    usual = min(BATCH, 1 << max(1, (images // BATCHES).bit_length() - 1))
    return replace(training, batch_size=training.batch_size or usual)
