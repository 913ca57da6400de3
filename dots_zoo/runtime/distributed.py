"""Several processes that train one network: what they average, what they agree about, and which one writes.

`accelerate launch --multi_gpu` or torchrun starts them, and Accelerate connects them: gloo on CPUs, nccl on
GPUs. Each takes its
share of every batch, and normalises by the statistics of that share. Gradients, figures and running
statistics are averaged in one message, so that behind every step all processes hold the same numbers, and
what the first one writes is where all of them stand.

A search does not use DistributedDataParallel, which retraining does. It expects one backward pass a step
through one module that uses all of its weights; here a step computes gradients of the weights or of the
logits alone, of the operations that were drawn, or four times in the second order, and the logits are no
module's.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import DotsZooError

if TYPE_CHECKING:  # det and seg run without it
    from accelerate import Accelerator  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Processes:
    """The `count` processes of a run, of which this is number `rank`; where there is one, nothing is sent.

    group: by which what lies on the CPU is sent; None is the one that Accelerate has made.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def own(self, purpose: str) -> str:
        """A draw that every process makes for itself; the first one draws as a process alone would."""
        return purpose if self.first else f"{purpose}, process {self.rank}"

    def averaged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over the processes, in one message; alone, the tensors themselves."""
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
        return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of them; the device is not waited for."""
        if self.count == 1:
            return flag
        told = torch.tensor(int(flag))
        dist.all_reduce(told, dist.ReduceOp.MAX, self.group)
        return bool(told)

    def agree(self, text: str) -> bool:
        """Whether all were given the same text."""
        if self.count == 1:
            return True
        own = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
        told = torch.tensor(own)
        dist.broadcast(told, 0, self.group)
        return not self.any(int(told) != own)

    def first_does(self, action: Callable[[], object]) -> None:
        """Waits until the first has done it; where it cannot, all end, and the first says why."""
        failed: DotsZooError | None = None
        if self.first:
            try:
                action()
            except DotsZooError as error:
                failed = error
        if self.any(failed is not None):
            raise failed or SystemExit(DotsZooError.exit_code)

    def end(self, sentence: str) -> NoReturn:
        """For what all of them find out at the same place: all end, and the first says why."""
        self.any(True)  # none leaves before the others are here
        raise DotsZooError(sentence) if self.first else SystemExit(DotsZooError.exit_code)

    def refuse_another_number(self, path: Path, facts: Mapping[str, Any]) -> None:
        """A checkpoint goes on in as many processes as kept it, where it says how many that were."""
        there = facts.get("processes", self.count)
        if there != self.count:
            self.end(
                f"{path}: expected {there} processes, as in the run that kept it, got {self.count}: each has "
                "its share of a batch, its statistics and its draws; go on with accelerate launch "
                f"--num_processes {there}, or begin anew in another folder"
            )


ALONE = Processes()


def processes_of(accelerator: "Accelerator") -> Processes:
    """Those that Accelerate has connected; every call has to be made by all of them.

    Raises DotsZooError where this process was started as one of several that are not connected, and where
    several were asked for and the launcher started one.
    """
    several = {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys()  # of accelerate launch
    if several and "WORLD_SIZE" not in os.environ:
        raise DotsZooError(
            "accelerate launch --cpu starts one process, whatever --num_processes says; expected "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N"
        )
    count, started = accelerator.num_processes, int(os.environ.get("WORLD_SIZE", "1"))
    if count < started:
        raise DotsZooError(
            f"expected {started} connected processes, as WORLD_SIZE says, got {count}: without a GPU for "
            "each set ACCELERATE_USE_CPU=true"
        )
    if count == 1:
        return ALONE
    on_cpu = accelerator.device.type == "cpu"
    return Processes(accelerator.process_index, count, None if on_cpu else dist.new_group(backend="gloo"))


@contextmanager
def disconnecting() -> Iterator[None]:
    """Around a command: the processes are connected no longer when Python ends.

    Threads of gloo that give tensors back while Python ends abort the process (pytorch/pytorch#190489). nccl
    waits for the others as it disconnects; where something was raised, they may never come, and it is left.
    """
    whole = False
    try:
        yield
        whole = True
    finally:
        if dist.is_available() and dist.is_initialized() and (whole or dist.get_backend() == "gloo"):
            dist.destroy_process_group()
