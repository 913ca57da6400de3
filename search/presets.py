"""Sets of numbers for particular data and machines."""

from .config import DotsConfig, LogitsConfig, TrainingConfig, WeightsConfig


def digits_small(seed: int = 0) -> DotsConfig:
    """DOTS on scikit-learn's digits at their own 8x8 pixels, small enough for one CPU thread.

    It has 21 + 90 steps for the logits where the paper has 5,850 + 15,620, so they are longer.
    """
    return DotsConfig(
        operation_epochs=6,  # 3 of weights alone
        operation_cells=3,  # the fewest: one normal, two that reduce to 2x2 pixels
        topology_epochs=12,  # 6 of weights alone
        topology_cells=4,  # deeper than the operation search, as in the paper
        operation_temperature=0.02,  # so that the first step does not decide
        training=TrainingConfig(
            seed=seed,
            channels=4,
            batch_size=96,  # 7 steps an epoch of half the images
            crop_padding=1,  # an eighth of the side, as 4 is of CIFAR's 32
            weights=WeightsConfig(learning_rate=0.2, learning_rate_end=0.02),
            logits=LogitsConfig(learning_rate=0.03),
        ),
    )
