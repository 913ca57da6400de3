"""Memory that is freed stays with the process: counted in page faults."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from dots_zoo.runtime.malloc import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)  # 64 MiB, 16,384 pages of 4 KiB
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.processes
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_tensor_takes_the_place_of_one_that_is_gone_without_page_faults() -> None:
    kept = [faults("keep") for _ in range(3)]  # a machine that reclaims memory adds some, and takes none away
    assert {word for word, _ in kept} == {"True"}
    assert faults("leave")[1] > 10 * 16000 > 4 * min(count for _, count in kept)


def faults(word: str) -> tuple[str, int]:
    """Return whether memory is kept, and the page faults of ten tensors."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, word], check=True, capture_output=True, text=True)
    kept, count = run.stdout.split()
    return kept, int(count)
