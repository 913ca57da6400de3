"""From the host to a device without waiting for it: draws, masks, images.

Source: CUDA runtime API, "API synchronization behavior": a copy out of pageable memory first waits for all
that the device has still to do; one out of pinned memory need not.
"""

import torch
from torch import Tensor

PINNED = ("cuda",)  # devices that copy out of pinned memory while the host goes on


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; what reads it there finds it filled.

    PyTorch gives the pinned memory to no one else before the copy is done.
    """
    if tensor.device.type == "cpu" and device.type in PINNED:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
