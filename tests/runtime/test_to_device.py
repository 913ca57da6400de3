"""What is sent to a device comes out of pinned memory where that spares a wait."""

import pytest
import torch

from dots_zoo.runtime.to_device import to_device

CPU = torch.device("cpu")


class OnTheHost:
    """A tensor that writes down what is done with it."""

    def __init__(self, told, device=CPU):
        self.told, self.device = told, device

    def pin_memory(self):
        self.told.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        self.told.append((device.type, non_blocking))
        return OnTheHost(self.told, device)


def test_on_the_host_it_is_the_tensor_itself():
    tensor = torch.arange(3)
    assert to_device(tensor, CPU) is tensor


@pytest.mark.gpu_stub
def test_a_gpu_is_sent_to_out_of_pinned_memory_and_not_waited_for():
    told = []
    to_device(OnTheHost(told), torch.device("cuda", 1))
    assert told == ["pinned", ("cuda", True)]


@pytest.mark.gpu_stub
@pytest.mark.parametrize(("here", "there"), [("cpu", "mps"), ("cuda", "cuda"), ("cuda", "cpu")])
def test_all_else_is_copied_as_ever(here, there):
    """What comes back from a GPU has to be there when it is read."""
    told = []
    to_device(OnTheHost(told, torch.device(here)), torch.device(there))
    assert told == [(there, False)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_arrives_and_waits_for_nothing():
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [to_device(torch.full((1000,), float(n)), torch.device("cuda")) for n in range(100)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [tensor.mean().item() for tensor in found] == list(range(100))
