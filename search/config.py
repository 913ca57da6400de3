"""The numbers of a search. Defaults are the paper's for CIFAR-10; every field is also an option and a YAML
key.
"""

from dataclasses import dataclass, field
from typing import Literal

from dots_zoo.errors import DotsZooError

from .space import GROUP_V2, EdgeRule, Groups


@dataclass(frozen=True)
class WeightsConfig:
    """SGD with a cosine over all epochs of the search, for the weights of the supernet.

    Args:
        learning_rate: at the first epoch.
        learning_rate_end: that the cosine reaches after the last epoch.
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


@dataclass(frozen=True)
class TrainingConfig:
    """What the training loop needs, whatever the method.

    Args:
        seed: every draw of the run derives from it.
        channels: width of the first cells of the supernet.
        batch_size: images in a step; an incomplete last batch is left out.
        crop_padding: pixels of zeros on every side before the random crop; 0 leaves it out.
        cutout: side of the square that is blanked in training images; 0 leaves it out.
        precision: "bf16" runs the supernet under autocast.
        weights: SGD for the weights of the supernet.
        logits: Adam for the architecture logits.
    """

    seed: int = 0
    channels: int = 16  # as in DARTS; the paper does not say
    batch_size: int = 64  # as in DARTS and in the public code
    crop_padding: int = 4  # as in DARTS
    cutout: int = 0  # DARTS uses it for retraining only
    precision: Literal["no", "bf16"] = "no"
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("batch_size", 1), ("crop_padding", 0), ("cutout", 0)):
            if getattr(self, name) < least:
                raise DotsZooError(f"training.{name}: expected {least} or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class DotsConfig:
    """DOTS: operations in groups first, then pairs of edges (CVPR 2021).

    Args:
        operation_epochs: of the operation search; the first half trains weights only.
        operation_cells: depth of the supernet in the operation search.
        topology_epochs: of the topology search; the first half trains weights only.
        topology_cells: depth of the supernet in the topology search.
        groups: the best operation of every group stays on an edge for the topology search.
        edges: pairs keeps two edges a node, any keeps one or more.
        average_edges: divide a combination's weight by its number of edges, as Eq. 7 does.
        temperature_start: of the topology, at its first epoch after the warm-up.
        temperature_end: of the topology, at its last epoch.
        operation_temperature: of the operations in the topology search, a fraction of the topology's.
        training: what the training loop needs.

    """

    operation_epochs: int = 30  # supplementary, Sec. 1
    operation_cells: int = 8  # Sec. 5.1
    topology_epochs: int = 40  # supplementary, Sec. 1
    topology_cells: int = 20  # Sec. 5.1
    groups: Groups = GROUP_V2  # supplementary, Sec. 2
    edges: EdgeRule = "pairs"  # Sec. 4.1.1
    average_edges: bool = True  # Eq. 7; the public code sums
    temperature_start: float = 10.0  # T0, Sec. 5.1
    temperature_end: float = 0.02  # Sec. 5.1; gives theta = 0.72 over 20 epochs
    operation_temperature: float = 1e-3  # Sec. 4.2.2, Fig. 3
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        cells = ("operation_cells", 3), ("topology_cells", 3)  # one normal and two that reduce
        for name, least in (("operation_epochs", 1), ("topology_epochs", 1), *cells):
            if getattr(self, name) < least:
                raise DotsZooError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        for name in ("temperature_start", "temperature_end", "operation_temperature"):
            if getattr(self, name) <= 0:
                raise DotsZooError(f"{name}: expected more than 0, got {getattr(self, name)}")
