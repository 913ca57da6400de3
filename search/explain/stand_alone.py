"""Stand-alone networks of given cells, trained from scratch, to compare alpha and beta with.

Source: DOTS (CVPR 2021), Sec. 3.2; DropNAS (IJCAI 2020), Sec. 5.5. All networks train on all training images
and are tested on the test images, which the search never saw; networks of one seed start from the same draws.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dots_zoo.data.datasets import Data
from dots_zoo.genotype import Edge, Genotype
from dots_zoo.genotype.schema import write_json
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.progress import steps_bar
from dots_zoo.train.loop import fit
from dots_zoo.train.model import ModelOptions, build
from dots_zoo.train.recipe import Recipe

from ..stages.config import TrainingConfig, require_at_least
from ..supernet import Shape


@dataclass(frozen=True)
class StandAloneConfig:
    """Training of the stand-alone networks.

    Args:
        epochs: of each network; the papers train for hundreds.
        channels: width of its first cells; that of the supernet if not given.
        layers: number of its cells; that of the supernet if not given.
        batch_size: images in a step.
        learning_rate: of SGD at the first epoch; a cosine to zero follows.
        seeds: networks of every cell, whose mean accuracy counts.
        seed: of the first of them.
    """

    epochs: int = 5
    channels: int | None = None
    layers: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.1
    seeds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least("training.", epochs=(self.epochs, 1), seeds=(self.seeds, 1))


def accuracies(
    cells: Mapping[str, Genotype],
    config: StandAloneConfig,
    shape: Shape,
    training: TrainingConfig,
    data: Data,
    progress: bool,
) -> list[list[float]]:
    """Return the test accuracies of every genotype's networks, one a seed; images vary as in the search."""
    options = ModelOptions(shape.macro, config.channels or shape.channels, config.layers or shape.layers)
    recipe = Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        drop_path_rate=0.0,
        aux_weight=0.0,
        evaluate_every=0,
        augmentation=training.augmentation,
    )
    tested = []
    total = len(cells) * config.seeds * config.epochs
    with steps_bar(total, show=progress) as bar:
        for name, genotype in cells.items():
            bar.set_description(name)
            seed_accuracies = []
            for seed in range(config.seed, config.seed + config.seeds):
                seeded = replace(recipe, seed=seed)
                network = build(write_json(genotype), options, data, seeded).network
                state = fit(network, data, seeded, on_epoch=lambda history: bar.update(), progress=False)
                seed_accuracies.append(state.history[-1]["test_accuracy"])
            tested.append(seed_accuracies)
    return tested


def with_edges(genotype: Genotype, cell_type: str, edges: Sequence[Edge]) -> Genotype:
    """Return the genotype with these edges in place of all that enter their nodes, by node and input."""
    nodes = {edge.node for edge in edges}
    kept = [edge for edge in genotype.cells[cell_type].edges if edge.node not in nodes]
    ordered = sorted([*kept, *edges], key=lambda edge: (edge.node, edge.input))
    cell = replace(genotype.cells[cell_type], edges=tuple(ordered))
    return replace(genotype, cells={**genotype.cells, cell_type: cell})


def with_operation(genotype: Genotype, cell_type: str, edge: tuple[int, int], operation: str) -> Genotype:
    """Return the genotype with another operation on an edge.

    Raises:
        DotsZooError: if the cell has no such edge.
    """
    edges = genotype.cells[cell_type].edges
    if edge not in [(other.node, other.input) for other in edges]:
        known = ", ".join(f"{other.node}<-{other.input}" for other in edges)
        raise DotsZooError(
            f"{cell_type} cell, edge {edge[0]}<-{edge[1]}: expected an edge of the cell that was found, "
            f"{known}"
        )
    changed = [replace(e, op=operation) if (e.node, e.input) == edge else e for e in edges]
    cell = replace(genotype.cells[cell_type], edges=tuple(changed))
    return replace(genotype, cells={**genotype.cells, cell_type: cell})


def means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of every row, over the seeds."""
    return [statistics.mean(row) for row in rows]


def described(config: StandAloneConfig, shape: Shape, data: Data) -> dict[str, Any]:
    """Return the options of the networks, for the figures."""
    return {
        "channels": config.channels or shape.channels,
        "layers": config.layers or shape.layers,
        "epochs": config.epochs,
        "seeds": config.seeds,
        "training_images": len(data.labels),
        "test_images": len(data.test_labels),
    }
