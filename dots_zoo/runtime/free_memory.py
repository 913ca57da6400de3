"""How much memory is free on a device, and one sentence where it runs out."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .errors import DotsZooError

CGROUPS = (  # limit and use of the control group that a container runs in, versions 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows."""

    _fields_ = (
        ("dwLength", ctypes.c_ulong),
        ("dwMemoryLoad", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in ("total", "available", "a", "b", "c", "d", "e")),
    )


def free_bytes(device: torch.device, root: Path = Path("/")) -> int:
    """Return the bytes that this process can still take on a device.

    On a GPU those that the driver has and those that torch holds unused; on Linux what the kernel can hand
    out without swapping (MemAvailable), or less where a control group limits it; on Windows the free
    physical memory; elsewhere, as on macOS, all physical memory: the free one takes a further package.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    table = root / "proc/meminfo"
    if table.is_file():
        rows = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
        available = int(rows["MemAvailable"].split()[0]) * 1024
        return min([available, *(left for pair in CGROUPS if (left := _left(root, *pair)) is not None)])
    if sys.platform == "win32":
        status = _MemoryStatus(ctypes.sizeof(_MemoryStatus))
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.available)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left(root: Path, limit: str, used: str) -> int | None:
    """Return what a control group may still take, None where it has no limit."""
    try:
        texts = [(root / path.lstrip("/")).read_text().strip() for path in (limit, used)]
        return max(0, int(texts[0]) - int(texts[1]))
    except (OSError, ValueError):  # no such file, or "max"
        return None


@contextmanager
def out_of_memory_as_error(what: str, remedy: str) -> Iterator[None]:
    """Within the block, say in one sentence that memory ran out.

    Args:
        what: the command that runs, which begins the sentence.
        remedy: what needs less, which ends it.

    Raises DotsZooError where torch cannot allocate, on a GPU or on a CPU, or Python itself cannot.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(what, remedy, str(error)) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise _out_of_memory(what, remedy, str(error)) from error


def _out_of_memory(what: str, remedy: str, message: str) -> DotsZooError:
    first = message.strip().splitlines()[0] if message.strip() else "no message"
    return DotsZooError(f"{what}: expected memory for another step, got none ({first}); {remedy}")
