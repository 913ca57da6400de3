"""Compare the demo's cell with a random one of its cost: train both alike, and say what the figures tell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor

from ..data.augment import Augmentation
from ..data.datasets import Data, DataOptions
from ..data.digits_on_photos import TEST_COPIES
from ..data.load import load_data
from ..genotype import Genotype, load_genotype, to_text
from ..macs import count
from ..runtime.atomic_write import write_file
from ..train.loop import fit
from ..train.recipe import Recipe

DATA = "digits_on_photos"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the demo; with the defaults it takes minutes on two cores."""

    channels: int = 12  # of the first cells of the retrained networks
    layers: int = 3
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.1
    label_smoothing: float = 0.1
    candidates: int = 200  # random cells, of which the one nearest in cost is trained
    bench_seconds: float = 2.0  # per row of the latency table

    @property
    def shape(self) -> dict[str, Any]:
        """Return the arguments of the networks."""
        return {"channels": self.channels, "layers": self.layers, "in_chans": 1, "num_classes": 10}


@dataclass(frozen=True)
class Trained:
    """A trained cell: test accuracy in [0, 1], cost, and which test images it names, bool (N,)."""

    accuracy: float
    params: int
    macs: int
    hits: Tensor

    def row(self, name: str) -> dict[str, Any]:
        """Return what the table of accuracies shows."""
        return {"name": name, "accuracy": self.accuracy, "params": self.params, "macs": self.macs}


def cost(genotype: Genotype, settings: Settings) -> tuple[int, int]:
    """Return (parameters, MACs) of the network of a cell."""
    with torch.device("meta"):
        model: Any = timm.create_model("cell_cifar", genotype=genotype, **settings.shape)
    costs = count(model, (1, 8, 8))
    return costs.params, costs.macs


def random_cells(seed: int, settings: Settings) -> list[tuple[str, int, int]]:
    """Draw random cells; return (genotype as text, parameters, MACs) of each."""
    from dots_zoo.search.space.discretise import random_genotype
    from dots_zoo.search.space.named import darts_space

    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(seed)
    cells = [random_genotype(darts_space(), draws) for _ in range(settings.candidates)]
    return [(to_text(cell), *cost(cell, settings)) for cell in cells]


def nearest(cells: Sequence[tuple[str, int, int]], params: int, macs: int) -> Genotype:
    """Return the cell whose parameters and MACs are nearest to those given, by their ratios."""
    text, _, _ = min(cells, key=lambda cell: abs(math.log(cell[1] / params)) + abs(math.log(cell[2] / macs)))
    return load_genotype(text)


def retrain(genotype: Path, weights: Path | None, seed: int, settings: Settings) -> Trained:
    """Train a cell from scratch on the images of the demo.

    weights: safetensors file for the parameters; None for the control's process, which shows no progress.
    """
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = load_data(DataOptions(data=DATA))
    model: Any = timm.create_model("cell_cifar", genotype=str(genotype), **settings.shape)
    recipe = Recipe(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        drop_path_rate=0.0,
        label_smoothing=settings.label_smoothing,
        evaluate_every=0,
        seed=seed,
        augmentation=Augmentation(crop_padding=1),
    )
    [*_, last] = fit(model, data, recipe, progress=weights is not None).history
    if weights is not None:
        write_file(weights, save(model.state_dict()))
    costs = count(model, (1, 8, 8))
    return Trained(last["test_accuracy"], costs.params, costs.macs, _hits(model, data))


@torch.no_grad()
def _hits(model: Any, data: Data) -> Tensor:
    model.eval()
    parts = torch.arange(len(data.test_labels)).split(100)
    return torch.cat([model(data.test_batch(part)).argmax(1) == data.test_labels[part] for part in parts])


def baselines(data: Any) -> list[dict[str, Any]]:
    """Score baselines without a network: 3 nearest neighbours and logistic regression on the pixels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    train, test = (images.flatten(1).numpy() / 255 for images in (data.images, data.test_images))
    models = {
        "3 nearest neighbours": KNeighborsClassifier(3),
        "logistic regression": LogisticRegression(max_iter=2000),
    }
    return [
        {
            "name": name,
            "accuracy": model.fit(train, data.labels.numpy()).score(test, data.test_labels.numpy()),
        }
        for name, model in models.items()
    ]


@dataclass(frozen=True)
class Comparison:
    """The accuracy of the found cell less that of the random one, with its standard error, in [-1, 1].

    Both cells see the same images, and the renderings of a digit are not independent: the standard error is
    that of the mean over digits of the difference on each.
    """

    difference: float
    standard_error: float

    @property
    def beyond_chance(self) -> bool:
        """Return True where the difference is more than two standard errors."""
        return abs(self.difference) > 2 * self.standard_error

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON of demo.json."""
        return {**asdict(self), "beyond_chance": self.beyond_chance}


def compare(searched: Tensor, control: Tensor) -> Comparison:
    """Compare the hits of two cells, bool (TEST_COPIES * digits,)."""
    digits = (searched.double() - control.double()).view(TEST_COPIES, -1).mean(0)
    return Comparison(digits.mean().item(), digits.std().item() / math.sqrt(len(digits)))


def verdicts(result: Mapping[str, Any]) -> list[str]:
    """Say in sentences what the accuracies of a demo's result tell, and what they do not."""
    searched, control, neighbours, *_ = result["accuracies"]
    comparison = result["comparison"]
    points, chance = 100 * comparison["difference"], 200 * comparison["standard_error"]
    cost_ratio = searched["macs"] / control["macs"]
    gap = 100 * (searched["accuracy"] - neighbours["accuracy"])
    limit = f"(two standard errors: {chance:.1f})"
    if comparison["beyond_chance"]:
        pays = "pays" if points > 0 else "does not pay"
        judgement = f"more than the draw of the test images explains {limit}: the search {pays} here"
    else:
        judgement = f"no more than the draw of the test images explains {limit}: a tie"
    side = "above" if points >= 0 else "below"
    sentences = [
        f"The cell that was found is {abs(points):.1f} points {side} the random cell, at {cost_ratio:.2f} "
        f"times its MACs: {judgement}."
    ]
    if gap > 10:
        sentences.append(
            f"Nearest neighbours stay {gap:.0f} points behind the network: these images are hard enough to "
            "tell networks apart."
        )
    else:
        sentences.append(
            f"Nearest neighbours come within {gap:.0f} points of the network: these images are too easy to "
            "tell cells apart."
        )
    sentences.append(
        "One search and one random cell on small images, each trained once, say little about a method: for "
        "that, search and retrain on CIFAR-10 or ImageNet, over several seeds."
    )
    return sentences
