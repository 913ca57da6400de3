"""What every operator is held to: its contract with PyTorch, and the noise of its reference."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LAST = torch.channels_last


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draw(*shape: int, dtype: torch.dtype = torch.double, seed: int = 0, grad: bool = True) -> Tensor:
    """A drawn tensor, channels last if it is a map, the same in every precision."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    values = values.contiguous(memory_format=LAST) if len(shape) == 4 else values
    return values.requires_grad_(grad)


def results(function: Callable[..., Any], inputs: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    """Outputs and gradients of a sum of them, which is weighted by drawn values."""
    out = function(*inputs, *rest)
    outs = list(out) if isinstance(out, tuple) else [out]
    pulls = [draw(*y.shape, dtype=y.dtype, seed=7, grad=False) for y in outs]
    total = sum((y * pull).sum() for y, pull in zip(outs, pulls, strict=True))
    wanted = [x for x in inputs if x.requires_grad]
    return [*outs, *torch.autograd.grad(total, wanted)]


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float = 1e-9) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def assert_as_precise(
    ours: Sequence[Tensor], reference: Sequence[Tensor], exact: Sequence[Tensor], times: float = 4
) -> None:
    """In float32 the error is at most some times that of the reference, for each result as a whole."""
    for one, other, truth in zip(ours, reference, exact, strict=True):
        errors = [(each.double() - truth).norm() for each in (one, other)]
        assert errors[0] <= times * errors[1] + 1e-6 * truth.norm(), errors


@contextmanager
def counted(module: Any, *names: str) -> Iterator[list[str]]:
    """The loops that are called inside, by name."""
    calls: list[str] = []
    loops = {name: getattr(module, name) for name in names}

    def watch(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return loops[name](*arguments)

        return call

    for name in names:
        setattr(module, name, watch(name))
    try:
        yield calls
    finally:
        for name, loop in loops.items():
            setattr(module, name, loop)


def opcheck(operator: Any, inputs: tuple[Any, ...], **options: Any) -> None:
    """The contract of an operator with PyTorch: schema, autograd, fake tensors, AOT dispatch."""
    with warnings.catch_warnings():  # its own reading of gradients warns
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
        torch.library.opcheck(operator, inputs, **options)
