"""DistributedDataParallel and FSDP2 in two processes: their gradients are those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT

# Both ranks see the same images, so that the mean of the gradients is the gradient of each.
PROGRAM = """
import copy, sys, torch, torch.distributed as dist, timm, dots_zoo
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(0)
plain = timm.create_model("dots_cifar10", channels=4, layers=3, num_classes=2).double().train()
plain.set_grad_checkpointing(sys.argv[2] == "checkpointing")
model = copy.deepcopy(plain)
x = torch.randn(4, 3, 16, 16, dtype=torch.double)
if sys.argv[1] == "ddp":
    run = DistributedDataParallel(model)
else:
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for cell in model.cells:
        fully_shard(cell, mesh=mesh)
    run = fully_shard(model, mesh=mesh)
for network in (plain, run):
    network(x).square().mean().backward()
for (name, p), (_, q) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
    grad = q.grad.full_tensor() if isinstance(q.grad, DTensor) else q.grad
    torch.testing.assert_close(grad, p.grad, rtol=1e-8, atol=1e-10, msg=name)
for (name, p), (_, q) in zip(plain.named_buffers(), model.named_buffers(), strict=True):
    torch.testing.assert_close(q, p, rtol=1e-10, atol=1e-12, msg=name)
assert isinstance(next(model.parameters()), DTensor) == (sys.argv[1] == "fsdp2")
dist.destroy_process_group()
"""


@pytest.mark.processes
@pytest.mark.parametrize("words", [("ddp", "plain"), ("fsdp2", "plain"), ("fsdp2", "checkpointing")])
def test_gradients_are_those_of_one_process(words: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [*launch, str(tmp_path / "program.py"), *words], check=True, cwd=ROOT / "docs", env=environment
    )
