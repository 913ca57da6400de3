"""Name the figures of a search in words, for the line of an epoch and for the page of a run."""

from collections.abc import Mapping

from .stage import Epoch

# name of a figure -> in words
TITLES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "architecture_loss": "loss of the architecture steps",
    "architecture_accuracy": "accuracy of the architecture steps",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "learning_rate": "learning rate",
    "temperature": "temperature",
    "noise": "noise on the weights",
    "auxiliary_weight": "weight of the auxiliary skip connections",
    "skip_dropout": "dropout after skip connections",
    "skips": "skip connections",
    "parametric": "operations with weights",
    "seconds": "seconds",
}
# first part of the name of logits -> what they weigh
WEIGHED = {"alpha": "operations", "beta": "edges"}
# cell type -> in words
CELL_TITLES = {"normal": "the normal cell", "reduce": "the reduction cell", "cell": "the cell"}
TABLE = "table."  # prefix of what a table of NAS-Bench-201 says of the cell


def figure_title(name: str) -> str:
    """Return the words for a figure, and for one that a method adds its name without underscores."""
    if name.startswith("entropy."):
        return f"entropy of the {weights_title(name.removeprefix('entropy.'))}"
    if name.startswith(TABLE):
        return name.removeprefix(TABLE).replace("_", " ")
    return TITLES.get(name, name.replace("_", " "))


def weights_title(name: str) -> str:
    """Return the words for weights by the name of their logits, such as "edges of the normal cell"."""
    group, _, cell_type = name.partition(".")
    weighed = WEIGHED.get(group, group.replace("_", " "))
    return f"{weighed} of {cell_title(cell_type)}" if cell_type else weighed


def cell_title(cell_type: str) -> str:
    """Return the words for a cell type."""
    return CELL_TITLES.get(cell_type, f"cell {cell_type}")


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """Return one line for a terminal or a log; `epochs` is the number of all stages together."""
    figures = epoch.figures
    parts = [f"loss {figures['loss']:.3f}"] if "loss" in figures else []
    parts += [
        f"{word} {100 * figures[name]:.1f} %"
        for name, word in (("accuracy", "accuracy"), ("validation_accuracy", "validation"))
        if name in figures
    ]
    parts += [f"entropy of the {weighed} {mean:.2f}" for weighed, mean in _entropies(figures).items()]
    place = f"epoch {epoch.epoch + 1} of {epochs}, {epoch.stage}" if "loss" in figures else epoch.stage
    return f"{place}: {', '.join([*parts, _duration(figures['seconds'])])}"


def _entropies(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the mean entropy in nats over the cell types, by what is weighed; without what is decided."""
    values: dict[str, list[float]] = {}
    for name, value in figures.items():
        if name.startswith("entropy."):
            group = name.split(".")[1]
            values.setdefault(WEIGHED.get(group, group.replace("_", " ")), []).append(value)
    means = {weighed: sum(series) / len(series) for weighed, series in values.items()}
    return {weighed: mean for weighed, mean in means.items() if mean}


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
