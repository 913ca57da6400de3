"""Run compiled loops on as many threads as PyTorch uses, and on the same ones: those of OpenMP.

An idle thread of OpenMP spins for some milliseconds, waiting for its next task. Other threads would share the
cores with the spinning ones: with two threads, a step would take as long as with one.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch

Result = TypeVar("Result")

_Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# void GOMP_parallel(void (*task)(void *), void *data, unsigned threads, unsigned flags): every thread of a
# team calls the task. GNU's OpenMP has it, and so do LLVM's and Intel's, except on Windows.
_GOMP_PARALLEL = None if os.name == "nt" else getattr(ctypes.CDLL(None), "GOMP_parallel", None)
_PROCESS = os.getpid()


def parallel_for(part: Callable[[int, int], Result], count: int) -> list[Result]:
    """Run part(first, last) on equal chunks of range(count) in parallel; return the results in order.

    `part` has to release the GIL. An exception in it is raised here.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        return [part(0, count)]
    bounds = [count * thread // threads for thread in range(threads + 1)]
    if _GOMP_PARALLEL is None or os.getpid() != _PROCESS:  # a forked process has no OpenMP threads
        return list(_pool(os.getpid(), threads).map(part, bounds, bounds[1:]))
    return _openmp(lambda chunk: part(bounds[chunk], bounds[chunk + 1]), threads)


def parallel_sum(loop: Callable[..., None], count: int, size: int, *arguments: Any) -> Any:
    """Return the sums (size,), in double precision, to which loop(*arguments, sums, first, last) adds.

    The ranges from first to last are equal chunks of range(count), in parallel.
    """

    def part(first: int, last: int) -> Any:
        sums = np.zeros(size)
        loop(*arguments, sums, first, last)
        return sums

    first, *others = parallel_for(part, count)
    return sum(others, first)


def _openmp(task: Callable[[int], Result], count: int) -> list[Result]:
    """Return [task(0), task(1), ...], run by a team of OpenMP.

    Each thread takes the next task that is left, as the team may be smaller than requested.
    """
    results: list[Any] = [None] * count
    errors: list[BaseException] = []
    chunks = iter(range(count))

    def run(_: object) -> None:
        try:
            for chunk in chunks:
                results[chunk] = task(chunk)
        except BaseException as error:  # it cannot pass through OpenMP
            errors.append(error)

    assert _GOMP_PARALLEL is not None
    _GOMP_PARALLEL(_Task(run), None, ctypes.c_uint(count), ctypes.c_uint(0))
    if errors:
        raise errors[0]
    return results


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the thread pool of a process, as threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dots_zoo")
