"""Derive every draw from one seed: a generator is a function of the run's seed and of its purpose.

No generator lives from one step to the next, so a draw does not depend on earlier draws, and a checkpoint
needs no random state beyond epoch and step.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, such as `derive_seed(0, "augment", epoch, step)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(device: torch.device, seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block and restore the caller's state after it.

    It serves what can only draw globally: initial values of modules, drop path, mixup, the operation `noise`.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        value = derive_seed(seed, *purpose)
        # torch.manual_seed would touch every device, not only these
        torch.default_generator.manual_seed(value)
        if devices:
            torch.cuda.manual_seed(value)
        yield
