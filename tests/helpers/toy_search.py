"""A search small enough for tests: four noisy patterns, two nodes, and a right answer by construction."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from dots_zoo.data.augment import Augmentation
from dots_zoo.data.datasets import ImageData
from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.config import LogitsConfig, TrainingConfig, WeightsConfig
from dots_zoo.search.stages.loop import run_of, run_stages
from dots_zoo.search.stages.stage import Epoch

# Every edge can be noise, and 3<-0 can be nothing else: a search must find the convolution, and the edges
# that leave nodes 1 and 2 for node 3. Both answers stand last: a search that learns nothing misses them.
PLANTED = ("noise", "sep_conv_3x3")
PLANTED_EDGES = (PLANTED, PLANTED, ("noise",), PLANTED, PLANTED)  # 2<-0, 2<-1, 3<-0, 3<-1, 3<-2
PLANTED_SPACE = SearchSpace(2, (CellSpace("normal", PLANTED_EDGES), CellSpace("reduce", PLANTED_EDGES)))
# One edge, two operations: the smallest cell with something to decide.
TINY_SPACE = SearchSpace(1, tuple(CellSpace(kind, (PLANTED, PLANTED)) for kind in ("normal", "reduce")))


def toy_data(count: int = 256) -> ImageData:
    draws = torch.Generator().manual_seed(1)
    patterns = torch.rand(4, 1, 8, 8, generator=draws) * 160
    labels = torch.arange(count) % 4
    images = (patterns[labels] + torch.rand(count, 1, 8, 8, generator=draws) * 95).to(torch.uint8)
    return ImageData("toy", images, labels, images, labels, 4, (0.45,), (0.25,), False, {})


def toy_training(seed: int = 0, weights_rate: float = 0.05, **changes: Any) -> TrainingConfig:
    training = TrainingConfig(
        seed=seed,
        batch_size=32,
        augmentation=Augmentation(crop_padding=0),
        weights=WeightsConfig(learning_rate=weights_rate),
        logits=LogitsConfig(learning_rate=0.1),
    )
    return replace(training, **changes)


def toy_config(method: str = "dots", seed: int = 0, weights_rate: float = 0.05, **changes: Any) -> Any:
    """A configuration of the method with 4 epochs, half of them warm-up where it has one, and 3 cells."""
    config: Any = METHODS[method].config
    numbers = {
        "epochs": 4,
        "warm_up": 2,
        "layers": 3,
        "channels": 4,
        "training": toy_training(seed, weights_rate),
    }
    known = {name for name in numbers if name in config.__dataclass_fields__}
    return config(**{**{name: numbers[name] for name in known}, **changes})


def toy_derivation(topology: str = "none", **changes: Any) -> Derivation:
    return Derivation(topology=topology, topology_search=TopologyConfig(epochs=6, layers=3), **changes)


def search_toy(
    method: str = "dots",
    derivation: Derivation | None = None,
    space: SearchSpace = PLANTED_SPACE,
    data: ImageData | None = None,
    **changes: Any,
) -> list[Epoch]:
    config = toy_config(method, **changes)
    found = derivation or toy_derivation("pairs" if method == "dots" else "none")
    stages = plan(method, config, found, space)
    return list(run_stages(stages, run_of(config.training, data or toy_data()), progress=False))


def finds_the_planted(cells: Mapping[str, Any]) -> bool:
    """Whether every chosen edge is the convolution, and node 3 reads nodes 1 and 2."""
    return all(
        [(edge.node, edge.input) for edge in cell.edges] == [(2, 0), (2, 1), (3, 1), (3, 2)]
        and {edge.op for edge in cell.edges} == {"sep_conv_3x3"}
        for cell in cells.values()
    )
