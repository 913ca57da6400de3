"""One seed, every draw: a random source is a function of the run's seed and of what it is for.

No generator lives from one step to the next, so a draw does not depend on what was drawn before it: where a
run stands (epoch, step) is all that a checkpoint has to say about randomness.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as `derive_seed(0, "augment", epoch, step)`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(device: torch.device, seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block and give the caller's state back after it.

    For what can only draw globally: the initial values of modules, drop path, mixup, the operation `noise`.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        value = derive_seed(seed, *purpose)
        # torch.manual_seed would touch every device, not only these
        torch.default_generator.manual_seed(value)
        if devices:
            torch.cuda.manual_seed(value)
        yield
