"""The validation loss around alpha, over two random directions.

Source: DARTS- (ICLR 2021), Sec. 5.2, Fig. 3 and A.3: two random directions, normalised, after Li et al.
(NeurIPS 2018). The directions are orthogonal, over the open logits of all cell types, and of root mean
square 1 there: at x = 1 a logit has moved by 1 on average. There are no filters in alpha to normalise by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.progress import steps_bar
from dots_zoo.runtime.seeding import generator

from .completed_run import CompletedRun, StageSnapshot

Logits = dict[str, Tensor]


@dataclass(frozen=True)
class LandscapeConfig:
    """Validation loss and accuracy over two random directions of alpha (DARTS- Fig. 3).

    Args:
        radius: largest step either way; 1 moves a logit by 1 on average.
        points: along each direction, an odd number so that the middle is alpha itself.
        image_count: images of the validation split, the first; all if not given.
        seed: of the directions.
    """

    radius: float = 1.0
    points: int = 9
    image_count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.points < 3 or not self.points % 2:
            raise DotsZooError(f"points: expected an odd number of 3 or more, got {self.points}")
        if not self.radius > 0:
            raise DotsZooError(f"radius: expected more than 0, got {self.radius}")


def explain(completed_run: CompletedRun, config: LandscapeConfig, progress: bool) -> dict[str, Any]:
    """Measure the landscape around alpha at the end of the operation search."""
    snapshot = completed_run.snapshot("operation").limited(config.image_count)
    with steps_bar(config.points**2, show=progress) as bar:
        return landscape(snapshot, config, bar.update)


def landscape(
    snapshot: StageSnapshot, config: LandscapeConfig, done: Callable[[], Any] = lambda: None
) -> dict[str, Any]:
    """Return loss[j][i] and accuracy[j][i] at alpha + x[i] * one + y[j] * other."""
    one, other = directions(snapshot, config.seed)
    steps = torch.linspace(-config.radius, config.radius, config.points, dtype=torch.float64).tolist()
    alpha = {name: tensor.detach() for name, tensor in snapshot.search.logits.items()}
    relaxation, rows = snapshot.relaxation, []
    for y in steps:
        row = []
        for x in steps:
            moved = {name: alpha[name] + x * one[name] + y * other[name] for name in one}
            weights = relaxation.compute_weights({**alpha, **moved}, snapshot.step_index)
            row.append(snapshot.measure(relaxation.build_mixture(weights, snapshot.step_index)))
            done()
        rows.append(row)
    losses = [[loss for loss, _ in row] for row in rows]
    middle = config.points // 2
    flat = [loss for row in losses for loss in row]
    return {
        "x": steps,
        "y": steps,
        "loss": losses,
        "accuracy": [[accuracy for _, accuracy in row] for row in rows],
        "centre": losses[middle][middle],
        "lowest": min(flat),
        "highest": max(flat),
        "images": len(snapshot.run.parts["b"]),
    }


def directions(snapshot: StageSnapshot, seed: int) -> tuple[Logits, Logits]:
    """Return two orthogonal random directions of root mean square 1 over the open logits, zero elsewhere."""
    names = [f"alpha.{cell_type}" for cell_type in snapshot.search.space.cell_types]
    opened = torch.cat([snapshot.search.candidate_mask[name].flatten() for name in names])
    one, other = (torch.randn(len(opened), generator=generator(seed, "landscape", n)) for n in range(2))
    one, other = one.double() * opened, other.double() * opened
    other = other - torch.dot(one, other) / torch.dot(one, one) * one
    size = opened.sum().sqrt()
    return tuple(_named(snapshot, names, size * direction / direction.norm()) for direction in (one, other))  # type: ignore[return-value]


def _named(snapshot: StageSnapshot, names: list[str], flat: Tensor) -> Logits:
    """Return the pieces of a vector by the name of their logits."""
    logits = snapshot.search.logits
    pieces = flat.split([logits[name].numel() for name in names])
    return {n: piece.view(logits[n].shape).to(logits[n]) for n, piece in zip(names, pieces, strict=True)}


def draw(figures: dict[str, Any]) -> Figure:
    """Plot contours of the loss and of the accuracy; the cross marks alpha at the end of the search."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    for panel, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        filled = panel.contourf(figures["x"], figures["y"], figures[name], levels=15)
        figure.colorbar(filled, ax=panel)
        panel.plot(0, 0, marker="+", color="white", markersize=12)
        panel.set_title(f"validation {name} around alpha")
        panel.set_xlabel("first direction (root mean square of a logit)")
        panel.set_ylabel("second direction")
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    return (
        f"validation loss {figures['centre']:.4f} in the middle, from {figures['lowest']:.4f} to "
        f"{figures['highest']:.4f} around it"
    )
