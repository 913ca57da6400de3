"""Copy tensors from the host to a device without a sync: draws, masks, images.

Source: CUDA runtime API, "API synchronization behavior": a copy out of pageable memory first waits for all
that the device has still to do; one out of pinned memory need not.
"""

import torch
from torch import Tensor

PINNED = ("cuda",)  # devices that copy out of pinned memory asynchronously


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device, asynchronously from the CPU; later work on the device sees it complete.

    PyTorch does not reuse the pinned memory before the copy is done.
    """
    if tensor.device.type == "cpu" and device.type in PINNED:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
