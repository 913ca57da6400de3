"""Control of the statistics that batch norms normalise by, and of updates to the running ones.

Source: Ioffe and Szegedy (2015), Sec. 3.1.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def still_statistics(network: nn.Module) -> AbstractContextManager[None]:
    """Normalise by batch statistics within the block, in any mode; running statistics do not move."""
    return _replaced_statistics(network, lambda statistic: None)  # without them, the batch's are used


def frozen_statistics(network: nn.Module) -> AbstractContextManager[None]:
    """Restore the running statistics after the block, within which batch norms work as usual."""
    return _replaced_statistics(network, lambda statistic: None if statistic is None else statistic.clone())


@contextmanager
def _replaced_statistics(
    network: nn.Module, replacement: Callable[[Tensor | None], Tensor | None]
) -> Iterator[None]:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [{name: getattr(norm, name) for name in STATISTICS} for norm in norms]
    for norm, statistics in zip(norms, kept, strict=True):
        for name, statistic in statistics.items():
            setattr(norm, name, replacement(statistic))
    try:
        yield
    finally:
        for norm, statistics in zip(norms, kept, strict=True):
            for name, statistic in statistics.items():
                setattr(norm, name, statistic)
