"""Tune what the C library does with the memory of freed tensors.

glibc gives a large block back to the kernel, and the next tensor of that size gets it again page by page,
each cleared first. The cost for a training step is measured by `benchmarks/malloc.py`.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def return_freed_memory() -> None:
    """Return freed memory of this process to the kernel, also from between blocks in use."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc: its blocks go back by themselves, or never
        return


def keep_freed_memory() -> bool:
    """Keep freed memory in this process until it ends; return False if its C library is not glibc.

    It is for programs, not for a library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
