"""The dominant eigenvalue of the Hessian of the validation loss over alpha.

Source: RobustDARTS (Zela et al., ICLR 2020), Sec. 4: a large eigenvalue goes with a cell that generalises
badly; DARTS- (ICLR 2021), Sec. 5.1 and Fig. 4, shows that it need not.

Power iteration, v <- H v / ||H v||, finds the eigenvalue that is largest in magnitude, whatever its sign:
that is `dominant`. A second iteration, on H - dominant * I, finds the eigenvalue that is farthest from it,
the other end of the spectrum, so both `largest` (the curvature that the papers speak of) and `smallest` are
known. For a symmetric matrix some eigenvalue lies within ||H v - lambda v|| of lambda, so this residual is a
bound of the error.

alpha of every cell type is one vector. The product H v is exact, the derivative of g . v of the gradient
g, in double precision, on a supernet without kernels, which have no second derivative. A difference of
gradients will not do: a ReLU that changes sides between the two points adds a jump. Batch norms use the
statistics of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from dots_zoo.runtime.progress import steps_bar
from dots_zoo.runtime.seeding import seeded

from ..stages.config import require_at_least
from ..stages.steps import constant
from ..supernet import still_statistics, without_kernels
from .completed_run import CompletedRun, StageSnapshot

Product = Callable[[Tensor], Tensor]  # v -> H v


@dataclass(frozen=True)
class HessianConfig:
    """The dominant eigenvalue of the Hessian of the validation loss over alpha (RobustDARTS, DARTS- Fig. 4).

    Args:
        iterations: of the power iteration at most, for each end of the spectrum.
        tolerance: residual, as a share of the dominant eigenvalue, at which it ends.
        image_count: images of the validation split, the first; all if not given.
        seed: of the first vector.
    """

    iterations: int = 50
    tolerance: float = 1e-3
    image_count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least("", iterations=(self.iterations, 1), tolerance=(self.tolerance, 0))


@dataclass(frozen=True)
class Eigenpair:
    """An eigenvalue of H and its vector.

    Args:
        value: the eigenvalue.
        vector: its unit vector, (n,).
        residual: ||H v - value v||.
        history: estimates of the eigenvalue, one an iteration.
    """

    value: float
    vector: Tensor
    residual: float
    history: tuple[float, ...]


def explain(completed_run: CompletedRun, config: HessianConfig, progress: bool) -> dict[str, Any]:
    """Compute the spectrum at the end of the operation search."""
    snapshot = completed_run.snapshot("operation").limited(config.image_count)
    with steps_bar(2 * config.iterations, show=progress) as bar:
        return spectrum(snapshot, config, bar.update)


def spectrum(
    snapshot: StageSnapshot, config: HessianConfig, done: Callable[[], Any] = lambda: None
) -> dict[str, Any]:
    """Return both ends of the spectrum, with their residuals."""
    point, derivative = derivatives(snapshot)

    def product(v: Tensor) -> Tensor:
        done()
        return derivative(v)

    draws = torch.Generator().manual_seed(config.seed)
    start = torch.randn(len(point), generator=draws, dtype=torch.float64).to(point.device)
    first = power_iteration(product, start, config)
    other = power_iteration(product, start, config, shift=first.value)
    low, high = sorted((first, other), key=lambda pair: pair.value)
    allowed = config.tolerance * abs(first.value)
    return {
        "dominant": first.value,
        "largest": high.value,
        "smallest": low.value,
        "residual": {"dominant": first.residual, "largest": high.residual, "smallest": low.residual},
        "converged": {"dominant": first.residual <= allowed, "other": other.residual <= allowed},
        "iterations": {"dominant": len(first.history), "other": len(other.history)},
        "history": {"dominant": list(first.history), "other": list(other.history)},
        "alphas": len(point),
        "images": len(snapshot.run.parts["b"]),
        "gradient_norm": derivative(None).norm().item(),
    }


def power_iteration(product: Product, start: Tensor, config: HessianConfig, shift: float = 0.0) -> Eigenpair:
    """Return the eigenpair of H that is farthest from `shift`; the estimates are Rayleigh quotients."""
    vector = start / start.norm()
    history: list[float] = []
    scale = abs(shift)
    while True:
        image = product(vector)
        value = torch.dot(vector, image).item()
        history.append(value)
        residual = (image - value * vector).norm().item()
        moved = image - shift * vector
        done = residual <= config.tolerance * max(scale, abs(value))
        if done or len(history) == config.iterations or not moved.norm().item():
            return Eigenpair(value, vector, residual, tuple(history))
        vector = moved / moved.norm()


def derivatives(snapshot: StageSnapshot) -> tuple[Tensor, Callable[[Tensor | None], Tensor]]:
    """Return alpha as one vector (n,), and the function v -> H v, None -> gradient, in float64.

    Both are derivatives of the mean loss on the validation split.
    """
    search = snapshot.search
    supernet = without_kernels(search.supernet).eval().double()
    names = [f"alpha.{cell_type}" for cell_type in search.space.cell_types]
    fixed = {name: tensor.detach().double() for name, tensor in search.logits.items()}
    point = torch.cat([fixed[name].flatten() for name in names])
    sizes = [fixed[name].numel() for name in names]
    device, part, relaxation = snapshot.run.accelerator.device, snapshot.run.parts["b"], snapshot.relaxation
    parts = part.to(device).tensor_split(max(1, round(len(part) / snapshot.stage.batch_size)))

    def derivative(v: Tensor | None) -> Tensor:
        leaf, total = point.clone().requires_grad_(), torch.zeros_like(point)
        pieces = dict(zip(names, leaf.split(sizes), strict=True))
        logits = {**fixed, **{name: piece.view_as(fixed[name]) for name, piece in pieces.items()}}
        draws = seeded(device, snapshot.step_index.seed, "hessian")  # the same noise for every vector
        with constant(supernet), still_statistics(supernet), draws:
            for chosen in parts:
                mixture = relaxation.build_mixture(
                    relaxation.compute_weights(logits, snapshot.step_index), snapshot.step_index
                )
                answers = supernet(snapshot.run.data.plain_batch(chosen).double(), mixture)
                loss = F.cross_entropy(answers, snapshot.run.data.labels[chosen], reduction="sum")
                [gradient] = torch.autograd.grad(loss, leaf, create_graph=v is not None)
                total += gradient.detach() if v is None else torch.autograd.grad(gradient, leaf, v)[0]
        return total / len(part)

    return point, derivative


def draw(figures: dict[str, Any]) -> Figure:
    """Plot the estimates over the iterations, for both ends of the spectrum."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for name in ("dominant", "other"):
        history = figures["history"][name]
        panel.plot(range(1, len(history) + 1), history, marker=".", label=f"{name}: {history[-1]:.4g}")
    panel.axhline(0.0, color="black", linewidth=0.5)
    panel.set_title("eigenvalues of the Hessian of the validation loss over alpha")
    panel.set_xlabel("iteration")
    panel.set_ylabel("Rayleigh quotient")
    panel.legend()
    return figure


def line(figures: dict[str, Any]) -> str:
    """Summarise the result in one line."""
    sure = "" if all(figures["converged"].values()) else ", not converged: raise iterations"
    return (
        f"dominant eigenvalue {figures['dominant']:.4g} (residual {figures['residual']['dominant']:.1e}), "
        f"spectrum from {figures['smallest']:.4g} to {figures['largest']:.4g}{sure}"
    )
