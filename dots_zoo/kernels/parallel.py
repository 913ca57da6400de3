"""Run compiled loops on as many threads as PyTorch uses, and on its own: those of OpenMP.

A thread of OpenMP that has nothing to do waits in a loop, some milliseconds, for its next task. Threads
beside them would share the cores with those that wait: with two, a step would take as long as with one.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# void GOMP_parallel(void (*task)(void *), void *data, unsigned threads, unsigned flags): every thread of a
# team calls the task. GNU's library has it, and LLVM's and Intel's in its stead, but not on Windows.
_GOMP_PARALLEL = None if os.name == "nt" else getattr(ctypes.CDLL(None), "GOMP_parallel", None)
_PROCESS = os.getpid()


def parallel_for(part: Callable[[int, int], Result], count: int) -> list[Result]:
    """Run part(first, last) on equal chunks of range(count) in parallel and return the results in order.

    A part has to release the interpreter. What one raises is raised here.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        return [part(0, count)]
    bounds = [count * thread // threads for thread in range(threads + 1)]
    if _GOMP_PARALLEL is None or os.getpid() != _PROCESS:  # a fork has no threads of OpenMP
        return list(_pool(os.getpid(), threads).map(part, bounds, bounds[1:]))
    return _openmp(lambda chunk: part(bounds[chunk], bounds[chunk + 1]), threads)


def _openmp(task: Callable[[int], Result], count: int) -> list[Result]:
    """[task(0), task(1), ...]: a thread takes the next that is left, as fewer may come than asked for."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []
    chunks = iter(range(count))

    def run(_: object) -> None:
        try:
            for chunk in chunks:
                results[chunk] = task(chunk)
        except BaseException as error:  # nobody would see it here
            errors.append(error)

    assert _GOMP_PARALLEL is not None
    _GOMP_PARALLEL(_Task(run), None, ctypes.c_uint(count), ctypes.c_uint(0))
    if errors:
        raise errors[0]
    return results


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the pool of a process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dots_zoo")
