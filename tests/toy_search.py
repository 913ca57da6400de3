"""A search small enough for tests: four noisy patterns, two nodes, and a right answer by construction."""

from typing import Any

import torch

from dots_zoo.datasets import ImageData
from dots_zoo.search.config import DotsConfig, LogitsConfig, TrainingConfig, WeightsConfig
from dots_zoo.search.space import CellSpace, SearchSpace

# Every edge can be noise, and 3<-0 can be nothing else: a search must find the convolution, and the edges
# that leave nodes 1 and 2 for node 3. Both answers stand last: a search that learns nothing misses them.
PLANTED = ("noise", "sep_conv_3x3")
PLANTED_EDGES = (PLANTED, PLANTED, ("noise",), PLANTED, PLANTED)  # 2<-0, 2<-1, 3<-0, 3<-1, 3<-2
PLANTED_SPACE = SearchSpace(2, (CellSpace("normal", PLANTED_EDGES), CellSpace("reduce", PLANTED_EDGES)))


def toy_data(count: int = 256) -> ImageData:
    draws = torch.Generator().manual_seed(1)
    patterns = torch.rand(4, 1, 8, 8, generator=draws) * 160
    labels = torch.arange(count) % 4
    images = (patterns[labels] + torch.rand(count, 1, 8, 8, generator=draws) * 95).to(torch.uint8)
    return ImageData("toy", images, labels, images, labels, 4, (0.45,), (0.25,), False, {})


def toy_config(seed: int = 0, weights_rate: float = 0.05, **changes: Any) -> DotsConfig:
    training = TrainingConfig(
        seed=seed,
        channels=4,
        batch_size=32,
        crop_padding=0,
        weights=WeightsConfig(learning_rate=weights_rate),
        logits=LogitsConfig(learning_rate=0.1),
    )
    numbers = {"operation_epochs": 4, "operation_cells": 3, "topology_epochs": 6, "topology_cells": 3}
    return DotsConfig(**{**numbers, "groups": (PLANTED,), "training": training, **changes})
