"""Prove a graph against the torch network, element by element, and the whole file by the answers of its task.

A network that was never fitted answers every image alike, so its own outputs cannot tell a right graph from a
wrong one. Then a reference copy with fitted statistics is exported by the same path and compared instead, and
the two graphs must be wired alike.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets.folder import IMG_EXTENSIONS

from dots_zoo.runtime.errors import DotsZooError

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

MIN_IMAGES, MAX_IMAGES = 8, 128  # more change the ranges by little and take their time
HELD_OUT = 4  # every fourth image is not calibrated on, but compared


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


def read_images(
    folder: Path, size: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Return (images to calibrate on, images to compare), each (n, C, H, W), normalised.

    Take the middle of every image, at most MAX_IMAGES spread evenly over the sorted paths. Raises
    DotsZooError for a folder that is not there or holds fewer than MIN_IMAGES, and for an image that cannot
    be decoded.
    """
    if not folder.is_dir():
        raise DotsZooError(
            f"{folder}: no such calibration folder; give one with images of the kind to expect"
        )
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if len(paths) < MIN_IMAGES:
        raise DotsZooError(
            f"{folder}: expected at least {MIN_IMAGES} images to calibrate on ({', '.join(IMG_EXTENSIONS)}), "
            f"in it or below it, got {len(paths)}"
        )
    count = min(len(paths), MAX_IMAGES)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    images = torch.stack([_read_image(path, size) for path in chosen])
    shape = (1, -1, 1, 1)
    images = (images - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    held_out = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    return images[~held_out], images[held_out]


def _read_image(path: Path, size: tuple[int, int, int]) -> Tensor:
    """Return (C, H, W) in [0, 1]: the largest middle part with the network's proportions, resized."""
    channels, height, width = size
    try:
        with Image.open(path) as image:
            pixels = F.pil_to_tensor(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DotsZooError(f"{path}: expected an image, but it cannot be decoded ({error})") from error
    scale = min(pixels.shape[1] / height, pixels.shape[2] / width)
    part = F.center_crop(pixels, [max(1, round(height * scale)), max(1, round(width * scale))])
    resized: Tensor = F.resize(part, [height, width], antialias=True)
    return resized.float() / 255
