"""Compare what an ONNX graph computes with what the torch model computes.

The error of an output is judged against how much that output moves between inputs: an absolute tolerance
passes a graph that ignores its input as soon as the outputs are small or all alike, as those of an
untrained network are.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import ORT_ERRORS, open_session

TOLERANCE = 1e-3

# Two exact float32 evaluations of a deep network differ by 1e-7 to 1e-5 of the largest output, as sums are
# taken in another order. With a movement of at least 1e-2 of the largest output, TOLERANCE * movement is
# 1e-5 of it or more: rounding passes, and rounding alone cannot make the movement.
MIN_MOVEMENT = 1e-2


Judged = Literal["max", "mean"]


class ParityError(DotsZooError):
    """The ONNX graph does not compute what the torch model computes, or the outputs are not informative."""

    exit_code = 1


@dataclass(frozen=True)
class OutputParity:
    """One output over all test images, in the output's own unit.

    max_difference: max |onnx - torch|; mean_difference: the mean of it over all elements. movement: the
    largest difference between the torch outputs of two test images of one size at one element. largest: max
    |torch|. mean_movement: the mean of |torch - its mean over the test images of one size|, which the mean
    difference comes to in a graph that ignores its input. cosine: the smallest cosine between the two outputs
    for one image. agreement: the share of images whose largest element is the same one, for outputs of one
    row an image, None for maps.
    """

    name: str
    max_difference: float
    movement: float
    largest: float
    mean_difference: float
    mean_movement: float
    cosine: float
    agreement: float | None

    def error(self, judged: Judged) -> float:
        """Return the largest difference / the movement, or the mean difference / the mean movement."""
        if judged == "mean":
            return self.mean_difference / self.mean_movement
        return self.max_difference / self.movement


@dataclass(frozen=True)
class Parity:
    """The comparison of every output.

    batches: images in each test batch; sizes: their (height, width). tolerance: the largest `error` that is
    allowed. judged: by the largest difference ("max") or the mean one ("mean").
    """

    outputs: tuple[OutputParity, ...]
    batches: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    tolerance: float
    judged: Judged

    @property
    def error(self) -> float:
        """The largest of the outputs' errors."""
        return max(output.error(self.judged) for output in self.outputs)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return {"error": self.error, **asdict(self)}


def probe_images(count: int, size: tuple[int, int, int], seed: int) -> Tensor:
    """Return images (count, C, H, W) that a network can tell apart: shapes of rising contrast in fine noise.

    White noise alone looks the same to a trained network whatever the seed.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, size[0], 4, 4, generator=generator)  # (count, C, 4, 4)
    shapes = F.interpolate(coarse, size=size[1:], mode="bilinear")
    contrast = torch.linspace(0.5, 2.0, count).reshape(-1, 1, 1, 1)
    return contrast * shapes + 0.5 * torch.randn(count, *size, generator=generator)


def run_torch(model: nn.Module, batches: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the outputs of every batch, [batch][output]; the model is in evaluation mode."""
    with torch.no_grad():
        outputs = [model(batch) for batch in batches]
    return [[out] if isinstance(out, Tensor) else list(out) for out in outputs]


def run_onnx(content: bytes, batches: Sequence[Tensor], where: str) -> tuple[list[str], list[list[Tensor]]]:
    """Run ONNX Runtime on the CPU; return (names of the outputs, outputs of every batch, [batch][output]).

    float16 outputs are given as float32. Raises ParityError where the graph does not run.
    """
    session = open_session(content, "cpu", 0, where)
    [feed] = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    half = feed.type == "tensor(float16)"
    got = []
    for batch in batches:
        try:
            outputs = session.run(names, {feed.name: (batch.half() if half else batch).numpy()})
        except ORT_ERRORS as error:
            reason = str(error).partition("\n")[0]
            raise ParityError(
                f"{where}: fails in ONNX Runtime with a batch of {len(batch)}: {reason}"
            ) from error
        tensors = [torch.from_numpy(y) for y in outputs]
        got.append([y.float() if y.dtype is torch.float16 else y for y in tensors])
    return names, got


def spread(batches: Sequence[Tensor]) -> tuple[float, float]:
    """Return (movement, largest magnitude) of one output over all batches, comparing images of one size.

    batches: (n, ...) each.
    """
    groups = _by_shape(batches)
    movement = max(float((y.amax(0) - y.amin(0)).max()) for y in groups)  # over the images, per element
    return movement, max(float(y.abs().max()) for y in groups)


def mean_movement(batches: Sequence[Tensor]) -> float:
    """Return the mean distance of an element from its mean over the images of one size."""
    distances = [(y - y.mean(0)).abs().flatten() for y in _by_shape(batches)]
    return float(torch.cat(distances).double().mean())


def _by_shape(batches: Sequence[Tensor]) -> list[Tensor]:
    """Concatenate the batches (n, ...) of one shape per image."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for y in batches:
        groups.setdefault(y.shape[1:], []).append(y)
    return [torch.cat(group) for group in groups.values()]


def moves(movement: float, largest: float) -> bool:
    """Return True where an output depends on the image by more than rounding; False for NaN."""
    return movement >= MIN_MOVEMENT * largest > 0


def is_unfitted(model: nn.Module) -> bool:
    """Return True where the running statistics are those of fresh batch norms: means 0, variances 1."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    return bool(norms) and all(
        bool((m.running_mean == 0).all() and (m.running_var == 1).all())  # type: ignore[union-attr]
        for m in norms
    )


def fitted_copy(model: nn.Module, size: tuple[int, int, int], seed: int) -> nn.Module:
    """Return a copy whose outputs depend on every branch: statistics of two training passes, random scales.

    Scales (one-dimensional and not a bias: batch norm, layer norm, layer scale) are drawn between 0.5 and
    1.5, since a branch that starts at scale 0 would hide how it was exported. Only batch norm is in training
    mode: no dropout.
    """
    fitted = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in fitted.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    with torch.no_grad():
        for name, parameter in fitted.named_parameters():
            if parameter.ndim == 1 and not name.endswith("bias"):
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average of the two passes
            norm.train()
        for i in range(2):
            fitted(probe_images(4, size, seed + 1 + i))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return fitted.eval()


def compare(
    content: bytes, model: nn.Module, batches: Sequence[Tensor], where: str
) -> tuple[OutputParity, ...]:
    """Run the graph `content` in ONNX Runtime on the CPU, and `model`, on every batch.

    model: in evaluation mode, float32, on the CPU, returning a tensor or tensors with one row an image, in
    the order of the graph's outputs. batches: (n, C, H, W) each, two images or more in all. `where` opens
    the messages. Raises ParityError where the graph does not run or gives other shapes.
    """
    names, got = run_onnx(content, batches, where)
    expected = run_torch(model, batches)
    if len(expected[0]) != len(names):
        raise ParityError(f"{where}: has {len(names)} outputs, and the torch model {len(expected[0])}")
    by_output = zip(names, zip(*got, strict=True), zip(*expected, strict=True), strict=True)
    return tuple(_compared(name, g, e, where) for name, g, e in by_output)


def check_parity(
    content: bytes,
    model: nn.Module,
    batches: Sequence[Tensor],
    where: str,
    tolerance: float = TOLERANCE,
    judged: Judged = "max",
) -> Parity:
    """Compare as `compare` does, and judge every output by how much it moves between the images.

    Raises ParityError where an output differs by more than tolerance * movement, or moves too little to tell.
    """
    outputs = compare(content, model, batches, where)
    for output in outputs:
        _judge(output, tolerance, judged, where)
    sizes = tuple((batch.shape[2], batch.shape[3]) for batch in batches)
    return Parity(outputs, tuple(len(batch) for batch in batches), sizes, tolerance, judged)


def check_values(
    content: bytes,
    model: nn.Module,
    batches: Sequence[Tensor],
    where: str,
    tolerance: float = TOLERANCE,
    judged: Judged = "max",
) -> None:
    """Check outputs that do not move, weakly: no difference above tolerance of the largest value.

    It finds weights that went astray, and passes a graph that ignores its input.
    """
    for y in compare(content, model, batches, where):
        difference = y.max_difference if judged == "max" else y.mean_difference
        if not difference <= tolerance * y.largest:
            raise ParityError(
                f"{where}: output {y.name} differs from torch by {difference:.3g}, where its largest "
                f"value is {y.largest:.3g}: the graph is wrong"
            )


def _compared(name: str, got: Sequence[Tensor], expected: Sequence[Tensor], where: str) -> OutputParity:
    """Compare all batches (n, ...) of one output."""
    for g, e in zip(got, expected, strict=True):
        if g.shape != e.shape:
            shapes = f"{tuple(g.shape)} in ONNX Runtime and {tuple(e.shape)} in torch"
            raise ParityError(f"{where}: output {name} has shape {shapes}")
    differences = torch.cat([(g - e).abs().flatten() for g, e in zip(got, expected, strict=True)])
    pairs = [(g.flatten(1), e.flatten(1)) for g, e in zip(got, expected, strict=True)]  # (n, elements) each
    cosine = min(float(F.cosine_similarity(g, e).min()) for g, e in pairs)
    same = torch.cat([g.argmax(1) == e.argmax(1) for g, e in pairs]).double()
    movement, largest = spread(expected)
    return OutputParity(
        name=name,
        max_difference=float(differences.max()),
        movement=movement,
        largest=largest,
        mean_difference=float(differences.double().mean()),
        mean_movement=mean_movement(expected),
        cosine=cosine,
        agreement=float(same.mean()) if expected[0].ndim == 2 else None,
    )


def _judge(y: OutputParity, tolerance: float, judged: Judged, where: str) -> None:
    """Raise ParityError where an output moves too little to tell, or differs too much."""
    if not moves(y.movement, y.largest):
        raise ParityError(
            f"{where}: output {y.name} moves by {y.movement:.3g} between test images, less than "
            f"{MIN_MOVEMENT:g} of its largest value {y.largest:.3g}: too little to tell right from wrong"
        )
    if not y.error(judged) <= tolerance:
        difference, movement, mean = y.max_difference, y.movement, ""
        if judged == "mean":
            difference, movement, mean = y.mean_difference, y.mean_movement, " on average"
        raise ParityError(
            f"{where}: output {y.name} differs from torch by {difference:.3g}{mean}, {y.error(judged):.3g} "
            f"of the {movement:.3g} it moves{mean} between test images; {tolerance:g} is allowed: "
            "the graph is wrong"
        )
