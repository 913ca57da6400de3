"""Prove a graph against the torch network, element by element, and the whole file by the answers of its task.

A network that was never fitted answers every image alike, so its own outputs cannot tell a right graph from a
wrong one. Then a reference copy with fitted statistics is exported by the same path and compared instead, and
the two graphs must be wired alike.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from .calibration import read_images
from .options import ExportOptions
from .parity import (
    Parity,
    ParityError,
    check_parity,
    check_values,
    fitted_copy,
    is_unfitted,
    moves,
    probe_images,
    run_torch,
    spread,
)
from .pre_post import TaskAdapter
from .precision import TOLERANCES, Precision
from .tasks import wrap


@dataclass(frozen=True)
class Claim:
    """The claim to be proven: a graph computes `network`, in float32 and evaluation mode, on `batches`.

    name: opens the messages. adapter: of a task that has something around the network, else None. batches:
    normalised images, (n, C, H, W) each.
    """

    name: str
    network: nn.Module
    task: str
    adapter: TaskAdapter | None
    batches: Sequence[Tensor]
    precision: Precision

    def outputs_of(self, network: nn.Module) -> nn.Module:
        """Return a network, or a copy of it, as the task wraps it: its outputs are the traced graph's."""
        return wrap(network, self.task).module.eval()


@dataclass(frozen=True)
class LoweredGraph:
    """A graph in its final precision.

    wiring: of the graph in float32, as graph.wiring returns it. metadata: on the precision.
    """

    graph: onnx.ModelProto
    wiring: list[tuple[Any, ...]]
    metadata: dict[str, str]

    @property
    def content(self) -> bytes:
        """The graph as bytes."""
        content: bytes = self.graph.SerializeToString()
        return content


@dataclass(frozen=True)
class Reference:
    """The network that the comparison is made with.

    is_copy: it is not the exported network itself. is_fitted: it is a copy with fitted statistics, as the
    weights were never fitted.
    """

    network: nn.Module
    is_copy: bool = False
    is_fitted: bool = False


def comparison_images(
    model: nn.Module, size: tuple[int, int, int], options: ExportOptions
) -> tuple[Tensor | None, list[Tensor]]:
    """Return (images to calibrate on, None without int8; batches to compare), each (n, C, H, W).

    The batches are of several image sizes where height or width are left open, and hold real images, none of
    which is calibrated on, for int8.
    """
    lowering, dynamic = options.lowering, options.dynamic
    if lowering.calibration is not None:
        config: Any = getattr(model, "pretrained_cfg", {})
        mean, std = config.get("mean", (0.5,)), config.get("std", (0.5,))
        calibration, held_out = read_images(lowering.calibration, size, mean, std)
        return calibration, list(held_out.split(1 if "batch" not in dynamic else 3))
    channels, height, width = size
    sizes = [(height, width)]
    if {"height", "width"} & set(dynamic):
        for more_height, more_width in ((13, 27), (32, 64)):  # odd sizes, and whole strides
            tall = height + more_height if "height" in dynamic else height
            sizes.append((tall, width + more_width if "width" in dynamic else width))
    counts = (1, 3) if "batch" in dynamic else (1, 1, 1, 1)  # images in a batch
    shapes = [(count, (channels, *pixels)) for pixels in sizes for count in counts]
    return None, [probe_images(count, shape, options.seed + i) for i, (count, shape) in enumerate(shapes)]


def choose_reference(claim: Claim, size: tuple[int, int, int], seed: int) -> Reference:
    """Return the exported network where its outputs and answers are informative, else a copy of it.

    Raises ParityError for outputs that are not finite.
    """
    informative = _outputs_are_informative(claim)
    adapter, batches = claim.adapter, claim.batches
    if informative and (adapter is None or adapter.is_informative(claim.network, batches)):
        return Reference(claim.network)
    reference_copy = copy.deepcopy(claim.network) if informative else fitted_copy(claim.network, size, seed)
    if adapter:
        one_size = [batch for batch in batches if batch.shape[2:] == batches[0].shape[2:]]
        adapter.perturb_classifier(reference_copy, torch.cat(one_size)[:4])
    return Reference(reference_copy, is_copy=True, is_fitted=not informative)


def _outputs_are_informative(claim: Claim) -> bool:
    """Return True where every output of the network depends on the image by more than rounding.

    Raises ParityError for outputs that are not finite.
    """
    if is_unfitted(claim.network):
        return False
    outputs = list(zip(*run_torch(claim.outputs_of(claim.network), claim.batches), strict=True))
    if not all(y.isfinite().all() for output in outputs for y in output):
        raise ParityError(f"{claim.name}: its outputs are not finite numbers: the weights are broken")
    return all(moves(*spread(output)) for output in outputs)


def prove_graph(
    claim: Claim, reference: Reference, graph: LoweredGraph, reference_graph: LoweredGraph
) -> Parity:
    """Return the parity of `graph`, measured on the reference's graph where its own outputs cannot tell.

    Torch computes in float32 and without rewrites. Raises ParityError where a graph is not proven.
    """
    tolerance, judged = TOLERANCES[claim.precision]
    measured, network = (
        (reference_graph, reference.network) if reference.is_fitted else (graph, claim.network)
    )
    with _rounding_explained(reference, claim.precision):
        parity = check_parity(
            measured.content, claim.outputs_of(network), claim.batches, claim.name, tolerance, judged
        )
    if reference_graph.wiring != graph.wiring:
        raise ParityError(f"{claim.name}: with fitted statistics the exporter wires the graph otherwise")
    if reference.is_fitted:
        own_outputs = claim.outputs_of(claim.network)
        check_values(graph.content, own_outputs, claim.batches, claim.name, tolerance, judged)
    return parity


def prove_answers(claim: Claim, reference: Reference, graph: onnx.ModelProto) -> dict[str, Any]:
    """Return the figures of the comparison of a whole graph's answers with torch's; {} for a network alone.

    graph: the one made of the reference. Raises ParityError where the answers differ.
    """
    if claim.adapter is None:
        return {}
    content = graph.SerializeToString()
    with _rounding_explained(reference, claim.precision):
        return claim.adapter.check(content, reference.network, claim.batches, claim.precision, claim.name)


@contextmanager
def _rounding_explained(reference: Reference, precision: Precision) -> Iterator[None]:
    """Add to a failure in low precision that weights which were never fitted may amplify the rounding."""
    try:
        yield
    except ParityError as error:
        if not reference.is_fitted or precision == "fp32":
            raise
        raise ParityError(
            f"{error}, or these weights, which were never fitted and amplify the rounding of {precision}: it "
            "can be proven of trained ones"
        ) from error
