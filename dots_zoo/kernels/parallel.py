"""Compiled loops on as many threads as PyTorch uses, and on its own: those of OpenMP.

A thread of OpenMP that has nothing to do waits in a loop, some milliseconds, for what comes next. Threads
beside them would share the cores with those that wait: with two, a step would take as long as with one.
"""

import ctypes
import functools
import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")

_Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# void GOMP_parallel(void (*task)(void *), void *data, unsigned threads, unsigned flags): every thread of a
# team calls the task. GNU's library has it, and LLVM's and Intel's in its stead, but not on Windows.
_PARALLEL = None if os.name == "nt" else getattr(ctypes.CDLL(None), "GOMP_parallel", None)
_PROCESS = os.getpid()


def in_parts(part: Callable[[int, int], Found], count: int) -> list[Found]:
    """part(first, last) of equal parts of range(count), in order; a part has to release the interpreter."""
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        return [part(0, count)]
    bounds = [count * thread // threads for thread in range(threads + 1)]
    if _PARALLEL is None or os.getpid() != _PROCESS:  # a fork has no threads of OpenMP
        return list(_pool(os.getpid(), threads).map(part, bounds, bounds[1:]))
    return _in_team(lambda turn: part(bounds[turn], bounds[turn + 1]), threads)


def sum_of(found: list[Any]) -> Any:
    """Of what the parts found, which is no less than one."""
    return functools.reduce(operator.add, found)


def _in_team(task: Callable[[int], Found], count: int) -> list[Found]:
    """[task(0), task(1), ...]: a thread takes the next that is left, as fewer may come than asked for."""
    found: list[Any] = [None] * count
    errors: list[BaseException] = []
    turns = iter(range(count))

    def run(_: object) -> None:
        try:
            for turn in turns:
                found[turn] = task(turn)
        except BaseException as error:  # nobody would see it here
            errors.append(error)

    assert _PARALLEL is not None
    _PARALLEL(_Task(run), None, ctypes.c_uint(count), ctypes.c_uint(0))
    if errors:
        raise errors[0]
    return found


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One for every process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dots_zoo")
