"""Free memory by the kernel's figures and by a control group's, and one sentence where it runs out."""

import pytest
import torch

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.free_memory import free_bytes, out_of_memory_as_error

CPU = torch.device("cpu")


@pytest.mark.parametrize(("limit", "free"), [("max", 2048), ("1500", 500), ("900", 0)])
def test_a_control_group_limits_what_the_kernel_has(limit, free, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 2 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000\n")
    assert free_bytes(CPU, tmp_path) == free


def test_elsewhere_it_is_the_physical_memory(tmp_path):
    assert free_bytes(CPU, tmp_path) >= free_bytes(CPU) > 0


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nmore"), MemoryError()])
def test_running_out_is_one_sentence(error):
    with pytest.raises(DotsZooError, match="^train: expected memory for another step, got none .*; do less$"):
        with out_of_memory_as_error("train", "do less"):
            raise error


def test_so_it_is_on_a_cpu_and_other_errors_stay_what_they_are():
    with (
        pytest.raises(DotsZooError, match="DefaultCPUAllocator"),
        out_of_memory_as_error("search", "do less"),
    ):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="other"), out_of_memory_as_error("search", "do less"):
        raise RuntimeError("other")
