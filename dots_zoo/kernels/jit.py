"""Loops that numba compiles, and the maps they are given by address."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import torch
from numba.core.types import intp, voidptr
from numba.extending import intrinsic
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

Place = tuple[int, tuple[int, int, int, int]]  # address and (N, H, W, C)

OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}  # a * b + c may round once


def compiled(function: Function) -> Function:
    """Machine code, made on the first call for each type of arguments; kept on disk where possible."""
    try:
        return cast(Function, numba.njit(cache=True, **OPTIONS)(function))
    except RuntimeError:  # neither beside the source nor in a cache folder of the user
        return cast(Function, numba.njit(**OPTIONS)(function))


def place(x: Tensor) -> Place:
    """Of a map (N, C, H, W), channels last, for a loop that is given its address and not the map."""
    assert x.is_contiguous(memory_format=torch.channels_last), "a loop reads a map as channels last"
    count, channels, height, width = x.shape
    return x.data_ptr(), (count, height, width, channels)


@intrinsic  # type: ignore[untyped-decorator]
def _pointer_to(_: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(voidptr))

    return voidptr(intp), build


@compiled
def array_at(address: int, shape: tuple[int, ...], like: Any) -> Any:
    """The array of a shape, and of the type of another, that begins at an address, which does not keep it."""
    return numba.carray(_pointer_to(address), shape, like.dtype)
