"""Searches in which nothing is drawn of the images: two processes and one see the same."""

from dataclasses import replace

from dots_zoo.search.methods.registry import METHODS, Derivation, plan
from dots_zoo.search.methods.topology import TopologyConfig
from dots_zoo.search.space.space import CellSpace, SearchSpace
from dots_zoo.search.stages.config import TrainingConfig
from dots_zoo.search.stages.stage import Stage
from helpers.toy_search import toy_training

EDGE = ("max_pool_3x3", "skip_connect", "sep_conv_3x3")
SPACE = SearchSpace(2, tuple(CellSpace(kind, (EDGE,) * 5) for kind in ("normal", "reduce")))


def quiet_stages(method: str) -> tuple[tuple[Stage, ...], TrainingConfig]:
    """DOTS in its four stages, or DropNAS: a few steps each, with gradients that are clipped."""
    training = toy_training(batch_size=16)
    training = replace(training, weights=replace(training.weights, clip=0.5))
    topology = TopologyConfig(epochs=2, layers=3)
    if method == "dots":
        config = METHODS["dots"].config(epochs=2, warm_up=1, layers=3, channels=4, training=training)
        return plan("dots", config, Derivation("pairs", topology_search=topology), SPACE), training
    config = METHODS["dropnas"].config(epochs=2, layers=3, channels=4, r_p=0.3, r_np=0.3, training=training)
    return plan("dropnas", config, Derivation(), SPACE), training
