"""The memory that a step of a search needs, estimated on the meta device before the first step.

At its peak a step holds the weights with their gradients and momentum, the images, the maps that the forward
pass keeps for the backward pass, and what the largest recomputation keeps. The maps are those that autograd
saves in a forward pass on the meta device, where tensors take no memory; a storage counts once, however often
it is saved. They grow with the batch, so that one pass over two images is enough.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dots_zoo.ops import OPS
from dots_zoo.runtime.free_memory import free_bytes

from ..stages.stage import Run, Search, Stage, StepContext, StepIndex
from ..supernet import Memory, MixedOp, Mixture, Supernet

GIB = 2**30
IMAGES = 2  # of the pass; batch norm needs more than one value of a channel
COPIES = 3  # of the weights: themselves, gradients, momentum
LESS: dict[Memory, tuple[Memory, ...]] = {
    "fast": ("lean", "checkpoint"),
    "lean": ("checkpoint",),
    "checkpoint": (),
}
SMALLEST_SIDE = 16  # pixels; the smallest image size that is advised

Plan = Callable[[Memory], Sequence[Stage]]


@dataclass(frozen=True)
class Estimate:
    """The memory of a step, in bytes.

    Args:
        fixed: whatever the batch.
        image: for every image of the batch.
        batch: images in the step, of this process.
    """

    fixed: int
    image: int
    batch: int

    @property
    def total(self) -> int:
        return self.fixed + self.batch * self.image


def check_memory(plan: Plan, run: Run, memory: Memory, anyway: bool, *, show: bool) -> None:
    """Print what the largest step of a search needs beside what is free.

    Args:
        plan: option `training.memory` -> stages of the search.
        run: its constants.
        memory: the option that the search has.
        anyway: also where it will not fit.
        show: print the line where it fits.

    Raises DotsZooError where it will not fit, with what would.
    """
    largest = estimate(plan(memory), run)
    if largest is None:
        return
    free, size = free_bytes(run.accelerator.device), run.data.size
    if run.accelerator.device.type == "cpu":
        free //= run.processes.count  # which share it
    setting = f"batch {largest.batch} at {size}x{size}, --training.memory {memory}"
    sentence = f"search: a step needs about {_gib(largest.total)} ({setting}), {_gib(free)} are free"
    if largest.total > free and not anyway:
        less = [(other, estimate(plan(other), run)) for other in LESS[memory]]
        run.processes.end(f"{sentence}; {advice(largest, less, free, run, plan(memory))}, or --any-memory")
    if show and run.processes.first:
        print(sentence)


def advice(
    largest: Estimate,
    less: Sequence[tuple[Memory, Estimate | None]],
    free: int,
    run: Run,
    stages: Sequence[Stage],
) -> str:
    """Return what would fit, each by itself: another memory option, a smaller batch, smaller images."""
    fitting = [
        f"--training.memory {memory} ({_gib(other.total)})"
        for memory, other in less
        if other and other.total <= free
    ][:1]
    batch = (free - largest.fixed) // largest.image
    if batch >= IMAGES:
        power = 1 << (batch.bit_length() - 1)  # a power of two leaves the fewest images out
        fitting.append(f"--training.batch-size {power * run.processes.count}")
    for side in range(run.data.size // 16 * 16, SMALLEST_SIDE - 1, -16):
        smaller = estimate(stages, run, side) if side < run.data.size else None
        if smaller and smaller.total <= free:
            fitting.append(f"--image-size {side}")
            break
    if not fitting:
        return "choose fewer --channels or --layers: no smaller batch, image or --training.memory fits"
    return f"what would fit is {' or '.join(fitting)}"


def estimate(stages: Sequence[Stage], run: Run, size: int | None = None) -> Estimate | None:
    """Return the estimate of the largest step, None where no stage takes steps.

    Every supernet is looked at with all candidates that it begins with; a later one begins with those that
    need the most. Decisions on the way only close some. size: side of the images, if not that of the data.
    """
    search: Search | None = None
    estimates = []
    for stage in stages:
        if stage.builds:
            before = None if search is None else with_costliest_preferred(search)
            search = stage.initialise(run, before, StepIndex(run.seed, 0))
            if stage.epochs:
                estimates.append(_of_stage(stage, run, search, size or run.data.size))
    return max(estimates, key=lambda one: one.total, default=None)


def _of_stage(stage: Stage, run: Run, search: Search, size: int) -> Estimate:
    step_index = StepIndex(run.seed, 0)
    relaxation = stage.relax(search)
    sampled = relaxation.sampled_ops(search.logits, step_index)
    batch = run.data.labels[:0], run.data.labels[:0]  # no step is taken
    context = StepContext(run, search, relaxation, step_index, batch, None, sampled)
    with torch.no_grad():
        mixture = _on_meta(context.mixture())
    supernet = copy.deepcopy(search.supernet).to("meta")
    images = torch.empty(IMAGES, run.data.in_chans, size, size, device="meta")
    images = images.contiguous(memory_format=torch.channels_last)
    bf16 = run.accelerator.mixed_precision == "bf16"
    maps = saved_bytes(supernet, mixture, images, bf16)
    recomputed = recomputed_bytes(supernet, mixture, images, bf16)
    weights = sum(weight.nbytes for weight in supernet.parameters())
    image = (
        2 * images.nbytes + maps + recomputed
    ) // IMAGES  # a batch for the weights and one for the logits
    return Estimate(COPIES * weights, image, stage.batch_size // run.processes.count)


def with_costliest_preferred(search: Search) -> Search:
    """Return the search with logits by which the candidates remain that need the most memory."""
    logits = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in search.logits.items()}
    for cell_type in search.space.cell_types:
        for row, names in zip(
            logits[f"alpha.{cell_type}"].data, search.space.candidates(cell_type), strict=True
        ):
            row[: len(names)] = torch.tensor([_cost(name) for name in names])
    return replace(search, logits=logits)


def _cost(name: str) -> float:
    """Rank a candidate: none, a skip connection, a pooling, then by its weights."""
    if name == "none":
        return -1.0
    weights = sum(weight.numel() for weight in OPS[name](8, 1, False).parameters())
    return float(weights + ("pool" in name))


def _on_meta(mixture: Mixture) -> Mixture:
    """Return the mixture on the meta device, with weights that a gradient is computed of."""

    def moved(tables: Any) -> Any:
        return {k: table.detach().to("meta").requires_grad_() for k, table in tables.items()}

    edges = None if mixture.edges is None else moved(mixture.edges)
    return replace(mixture, operations=moved(mixture.operations), edges=edges)


class SavedMaps:
    """Sum up the storages that autograd saves, each once; those of weights are held anyway."""

    def __init__(self, held: Sequence[Tensor]) -> None:
        self.bytes = 0
        self.seen = {tensor.untyped_storage()._cdata for tensor in held}
        self.kept: list[Tensor] = []  # so that no later storage takes the place of one that was seen

    def save(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            self.kept.append(tensor.detach())
            self.bytes += storage.nbytes()
        return tensor


class Autocast(TorchFunctionMode):
    """Compute in bf16 what autocast does, which knows no meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv2d, torch.conv2d, F.linear):
            args = tuple(part.bfloat16() if isinstance(part, Tensor) else part for part in args)
        return func(*args, **(kwargs or {}))


@contextmanager
def _counting(supernet: Supernet, mixture: Mixture, bf16: bool) -> Iterator[SavedMaps]:
    held = [*supernet.parameters(), *supernet.buffers(), *mixture.operations.values()]
    maps = SavedMaps(held)
    with ExitStack() as stack:
        if bf16:
            stack.enter_context(Autocast())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(maps.save, lambda tensor: tensor))
        yield maps


def saved_bytes(supernet: Supernet, mixture: Mixture, images: Tensor, bf16: bool) -> int:
    """Return the bytes that a forward pass keeps for its backward pass."""
    with _counting(supernet, mixture, bf16) as maps:
        supernet(images, mixture)
    return maps.bytes


def recomputed_bytes(supernet: Supernet, mixture: Mixture, images: Tensor, bf16: bool) -> int:
    """Return the bytes that recomputation adds in the backward pass.

    What is recomputed is a cell or, in a lean step, a candidate. Measured (tests/helpers/step_memory.py), two
    cells are held at a time, and of every candidate one more map of the size of its output.
    """
    memory = supernet.shape.memory
    if memory == "fast":
        return 0
    mixed = [module for module in supernet.modules() if isinstance(module, MixedOp)]
    candidates = [operation for edge in mixed for operation in edge.operations.values()]
    supernet.shape = replace(supernet.shape, memory="fast")  # of a copy: nothing is recomputed now
    for edge in mixed:
        edge.lean = False
    kept: list[int] = []
    outputs: list[int] = []
    with _counting(supernet, mixture, bf16) as maps:
        began: list[int] = []

        def end(module: nn.Module, inputs: Any, output: Tensor) -> None:
            kept.append(maps.bytes - began.pop())
            outputs.append(output.nbytes)

        for part in supernet.cells if memory == "checkpoint" else candidates:
            part.register_forward_pre_hook(lambda module, inputs: began.append(maps.bytes))
            part.register_forward_hook(end)
        supernet(images, mixture)
    largest = sorted(kept, reverse=True)
    return sum(largest[:2]) if memory == "checkpoint" else sum(largest[:1]) + sum(outputs)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.0f} MiB"
