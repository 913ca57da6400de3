"""Define the hyperparameters of a training, and the schedules that depend on the step alone.

Source: DARTS (ICLR 2019), Sec. 3.2 and A.2; DOTS (CVPR 2021), Sec. 5.1. The presets in `presets/` are the
papers' settings; the defaults here are those of CIFAR-10.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from ..data.augment import Augmentation
from ..runtime.errors import DotsZooError

WARM_UP_SHARE = 0.2  # of the epochs: a schedule that is mostly warm-up ends before it has learnt


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyperparameters of a training; every field is also an option and a YAML key.

    Args:
        epochs: passes over the training images.
        batch_size: images in a step, of all processes together; an incomplete last batch is left out.
        learning_rate: of SGD, at its highest.
        warm_up_epochs: over which the learning rate rises from zero, at most a fifth of all epochs; a cosine
            to zero follows.
        momentum: of SGD.
        nesterov: use Nesterov's momentum.
        weight_decay: of SGD, on every parameter.
        clip: largest norm of all gradients together; 0 leaves it out.
        drop_path_rate: of every edge but identities, reached linearly in the last epoch; of a network that is
            not of cells, of its last block.
        aux_weight: of the auxiliary head's loss; 0 builds no such head, which networks that are not of cells
            lack in any case.
        label_smoothing: share of a label that is spread over all classes.
        mixup: strength of mixup (the alpha of its Beta distribution); 0 leaves it out.
        cutmix: strength of CutMix; 0 leaves it out. With both, each batch gets one of them.
        ema_decay: of the moving average of the weights that is evaluated and kept; 0 keeps the weights.
        first_size: side in pixels that training images are shrunk to in the first epoch, from where it grows
            to their own; 0 trains at their own throughout.
        growing_epochs: over which it grows.
        precision: bf16 computes under autocast.
        validation: number or share of the training images that are held out to choose the best epoch by: the
            last ones in the published order, or of every class where they come class by class. 0: none, and
            the test images are evaluated in their place.
        evaluate_every: epochs between evaluations; 0 evaluates after the last epoch only.
        seed: every draw of the training derives from it.
        augmentation: how training images vary.

    Raises DotsZooError where a number is out of its range.
    """

    epochs: int = 600
    batch_size: int = 96
    learning_rate: float = 0.025
    warm_up_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip: float = 5.0
    drop_path_rate: float = 0.2
    aux_weight: float = 0.4
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float = 0.0
    first_size: int = 0
    growing_epochs: float = 0.0
    precision: Literal["no", "bf16"] = "no"
    validation: int | float = 0
    evaluate_every: int = 1
    seed: int = 0
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(cutout=16))

    def __post_init__(self) -> None:
        for name, low, high, expected in (
            ("epochs", 1, math.inf, "1 or more"),
            ("batch_size", 2, math.inf, "2 or more"),
            ("learning_rate", math.ulp(0), math.inf, "more than 0"),
            ("warm_up_epochs", 0, math.inf, "0 or more"),
            ("momentum", 0, 1, "0 to 1"),
            ("weight_decay", 0, math.inf, "0 or more"),
            ("clip", 0, math.inf, "0 or more"),
            ("drop_path_rate", 0, math.nextafter(1, 0), "a probability below 1"),
            ("aux_weight", 0, math.inf, "0 or more"),
            ("label_smoothing", 0, math.nextafter(1, 0), "a share below 1"),
            ("mixup", 0, math.inf, "0 or more"),
            ("cutmix", 0, math.inf, "0 or more"),
            ("ema_decay", 0, math.nextafter(1, 0), "0 to below 1"),
            ("first_size", 0, math.inf, "0 pixels or more"),
            ("growing_epochs", 0, self.epochs, f"0 to the number of epochs, {self.epochs}"),
            ("validation", 0, math.inf, "0 or more"),
            ("evaluate_every", 0, math.inf, "0 or more"),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise DotsZooError(f"{name}: expected {expected}, got {value}")
        if self.nesterov and not self.momentum:
            raise DotsZooError("nesterov: expected a momentum above 0 with it, got momentum 0")
        if bool(self.first_size) != bool(self.growing_epochs):
            raise DotsZooError(
                f"first_size and growing_epochs: expected both or neither, got {self.first_size} and "
                f"{self.growing_epochs}"
            )
        if self.validation > 1 and self.validation != int(self.validation):
            raise DotsZooError(
                f"validation: expected a number of images or a share below 1, got {self.validation}"
            )

    @property
    def warm_up(self) -> float:
        """Return the epochs over which the learning rate rises, cut to WARM_UP_SHARE of them all."""
        return min(self.warm_up_epochs, WARM_UP_SHARE * self.epochs)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of a step: linear from zero, then a cosine to zero; `steps`: in an epoch."""
    total, warm = recipe.epochs * steps, round(recipe.warm_up * steps)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm))) / 2


def drop_path_rate(recipe: Recipe, epoch: int) -> float:
    """Return the drop-path rate of an epoch: linear from zero to its rate in the last one."""
    return recipe.drop_path_rate * epoch / max(1, recipe.epochs - 1)


def image_side(recipe: Recipe, epoch: int, full: int) -> int:
    """Return the side of an epoch's training images in pixels: from first_size to `full`, by fours.

    Small images first (progressive learning, EfficientNetV2, ICML 2021, Sec. 4): an epoch of few pixels costs
    less, and at the end the network sees the size that it will be used on.
    """
    if epoch >= recipe.growing_epochs:
        return full
    grown = (full - recipe.first_size) * epoch / recipe.growing_epochs
    return min(full, recipe.first_size + 4 * round(grown / 4))
