"""Compile loops with numba, and decide where they can run.

numba is imported with the first loop, not with this module: it takes half a second.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])

HAS_NUMBA = find_spec("numba") is not None  # the extras [search] and [train] bring it
SIMD_WIDTH = 16  # channels that a vector holds (`simd.py`)
MAX_TAPS = 25  # of a depthwise convolution whose weights stay in registers or in the next cache
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}  # a * b + c may round once


def compiled(function: Function) -> Function:
    """Compile a loop on its first call for each type of arguments, and keep it on disk where possible."""
    import numba

    options = {**OPTIONS, "no_cfunc_wrapper": True}
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no writable cache, beside the source or of the user
        return cast(Function, numba.njit(**options)(function))


def inlined(function: Function) -> Function:
    """Compile a function that only compiled loops call, and inline it there.

    A Python constant as argument is a type of its own, for which it is compiled again; np.int64(1) is not.
    """
    import numba

    return cast(Function, numba.njit(no_cfunc_wrapper=True, no_cpython_wrapper=True, **OPTIONS)(function))


CPU_OR_META = ("cpu", "meta")


def has_loops(*tensors: Tensor, devices: Sequence[str] = ("cpu",)) -> bool:
    """Return True if compiled loops take these tensors: CPU, all float32 or all float64, no autocast.

    devices: CPU_OR_META for what may be asked for shapes alone, as an estimate of memory does.
    """
    dtype = tensors[0].dtype
    return (
        HAS_NUMBA
        and dtype in (torch.float32, torch.float64)
        and all(x.dtype == dtype and x.device.type in devices for x in tensors)
        and not torch.is_autocast_enabled("cpu")
    )


def has_simd_loops(channels: int, taps: int = 1) -> bool:
    """Return True if loops compute SIMD_WIDTH channels at once, with a kernel of `taps` x `taps`."""
    return channels % SIMD_WIDTH == 0 and taps * taps <= MAX_TAPS


def channels_last(x: Tensor) -> Tensor:
    """Return a map (N, C, H, W) in channels-last layout, copied only if it is in another."""
    return x.contiguous(memory_format=torch.channels_last)


def empty_map(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Return an uninitialised channels-last map (N, C, H, W) of the batch and dtype of another."""
    size = (like.shape[0], channels, height, width)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def as_array(x: Tensor) -> Any:
    """View a channels-last map (N, C, H, W) as a NumPy array (N, H, W, C); a copy of any other layout."""
    return np.ascontiguousarray(x.detach().permute(0, 2, 3, 1).numpy())


def as_tensor(x: Any) -> Tensor:
    """View an array (N, H, W, C) as a channels-last map (N, C, H, W)."""
    return torch.from_numpy(x).permute(0, 3, 1, 2)
