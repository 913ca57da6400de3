"""Compiled loops on as many threads as PyTorch uses."""

import functools
import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

Found = TypeVar("Found")


def in_parts(part: Callable[[int, int], Found], count: int) -> list[Found]:
    """part(first, last) of equal parts of range(count), in order; a part has to release the interpreter."""
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        return [part(0, count)]
    bounds = [count * thread // threads for thread in range(threads + 1)]
    return list(_pool(os.getpid(), threads).map(part, bounds, bounds[1:]))


def sum_of(found: list[Any]) -> Any:
    """Of what the parts found, which is no less than one."""
    return functools.reduce(operator.add, found)


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One for every process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="dots_zoo")
