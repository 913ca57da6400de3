"""Train one network in several processes: what they average, what they agree on, and which one writes.

`accelerate launch --multi_gpu` or torchrun starts them, and Accelerate connects them: gloo on CPUs, nccl on
GPUs. Each takes its share of every batch, and normalises by the statistics of that share. Gradients, metrics
and running statistics are averaged in one message, so that after every step all processes hold the same
numbers, and the state that the first one writes is that of all.

Retraining uses DistributedDataParallel, a search does not. That expects one backward pass a step through one
module that uses all of its weights; a search step computes gradients of the weights or of the architecture
logits alone, of the sampled operations only, or four times in the second order, and the logits belong to no
module.
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

if TYPE_CHECKING:  # the commands det and seg run without it
    from accelerate import Accelerator  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Processes:
    """This process among the `count` processes of a run; with one, nothing is communicated.

    group: process group for tensors on the CPU; None: Accelerate's own.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Return True for the process that writes and prints."""
        return self.rank == 0

    def per_rank(self, purpose: str) -> str:
        """Return the purpose of a draw per process; the first one draws as a single process would."""
        return purpose if self.first else f"{purpose}, process {self.rank}"

    def averaged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Average tensors over the processes in one message; with one process, return them unchanged."""
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
        return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]

    def summed(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes."""
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Return the logical OR of `flag` over all processes, without a device sync."""
        if self.count == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX, self.group)
        return bool(flags)

    def agree(self, text: str) -> bool:
        """Return True if all processes were given the same text."""
        if self.count == 1:
            return True
        own_hash = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
        first_hash = torch.tensor(own_hash)
        dist.broadcast(first_hash, 0, self.group)
        return not self.any(int(first_hash) != own_hash)

    def first_does(self, action: Callable[[], object]) -> None:
        """Run `action` in the first process while the others wait; if it fails, end all of them."""
        failed: DotsZooError | None = None
        if self.first:
            try:
                action()
            except DotsZooError as error:
                failed = error
        if self.any(failed is not None):
            raise failed or SystemExit(DotsZooError.exit_code)

    def end(self, sentence: str) -> NoReturn:
        """End all processes for a reason that all of them find at the same place; the first raises it."""
        self.any(True)  # none leaves before the others are here
        raise DotsZooError(sentence) if self.first else SystemExit(DotsZooError.exit_code)

    def refuse_another_number(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that another number of processes wrote, where it says how many those were."""
        saved_count = facts.get("processes", self.count)
        if saved_count != self.count:
            self.end(
                f"{path}: expected {saved_count} processes, as in the run that wrote it, got {self.count}: "
                "each has its share of a batch, its statistics and its draws; resume with accelerate launch "
                f"--num_processes {saved_count}, or begin anew in another folder"
            )


ALONE = Processes()


def processes_of(accelerator: "Accelerator") -> Processes:
    """Return the processes that Accelerate has connected; all of them must call it.

    Raises DotsZooError where this process was started as one of several that are not connected, and where
    several were requested and the launcher started one.
    """
    several = {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys()  # set by accelerate launch
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
    """Disconnect the processes at the end of a command, before Python exits.

    Threads of gloo that free tensors while Python exits abort the process (pytorch/pytorch#190489). nccl
    waits for the other processes as it disconnects; after an error they may never come, so it stays
    connected.
    """
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        if dist.is_available() and dist.is_initialized() and (succeeded or dist.get_backend() == "gloo"):
            dist.destroy_process_group()
