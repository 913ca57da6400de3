"""A network under torch.compile: a drop-path rate that changes, and a backward pass that recomputes.

The backend is aot_eager, which traces as the default one does; what the default makes of the graph is torch's
own matter, takes a minute, and is the slow row.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._dynamo.testing import CompileCounterWithBackend

from dots_zoo.cell import DropPath, Node
from dots_zoo.genotype import CellGenotype, Edge, Genotype
from dots_zoo.network import CellNet
from helpers.fitting import images
from helpers.matrix import slow

SIZE = (3, 32, 32)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


# A cell of two edges: every edge is traced anew, which takes the time of these tests.
CELL = CellGenotype((Edge(2, 0, "dil_conv_3x3"), Edge(2, 1, "skip_connect")), (2,))


def small(**options: Any) -> CellNet:
    genotype = Genotype("small", "darts", {"normal": CELL, "reduce": CELL})
    return CellNet(genotype, "cifar", 4, 3, num_classes=10, **options).train()


@pytest.mark.parametrize("backend", ["aot_eager", slow("inductor")])
def test_gradient_checkpointing_computes_what_an_eager_step_does(backend: str) -> None:
    plain = small(aux_head=True).double()
    compiled = copy.deepcopy(plain)
    compiled.set_grad_checkpointing()
    run = torch.compile(compiled, backend=backend, fullgraph=True)
    for step in range(2):
        x = images(SIZE, 4, seed=step).double()
        for model, function in ((plain, plain), (compiled, run)):
            model.zero_grad()
            logits, auxiliary = function(x)
            (logits.square().mean() + auxiliary.square().mean()).backward()
    for (name, p), (_, q) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        assert p.grad is not None and q.grad is not None and p.grad.abs().max() > 0
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-8, atol=1e-10, msg=name)
    for (name, p), (_, q) in zip(plain.named_buffers(), compiled.named_buffers(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-10, atol=1e-12, msg=f"{name} moved twice")
    assert int(compiled.cells[0].preprocess1[2].num_batches_tracked) == 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_graph_serves_every_drop_path_rate(checkpointing: bool) -> None:
    model, counter = small(), CompileCounterWithBackend("aot_eager")
    model.set_grad_checkpointing(checkpointing)
    run = torch.compile(model, backend=counter, fullgraph=True)
    for rate in (0.0, 0.1, 0.2, 0.3):
        model.set_drop_path(rate)
        run(images(SIZE)).mean().backward()
    assert counter.frame_count == 1


def test_a_compiled_edge_is_dropped_at_the_rate_that_is_set() -> None:
    node = Node([(0, Times(1.0)), (1, nn.Identity())]).train()
    run = torch.compile(node, backend="aot_eager", fullgraph=True)
    x, y = torch.ones(2000, 1, 2, 2), torch.full((2000, 1, 2, 2), 10.0)
    for rate, kept in ((0.5, 12.0), (0.2, 11.25), (0.0, 11.0)):
        node.drop_path.drop_prob = rate
        out = run([x, y])[:, 0]
        assert torch.equal(out, out[:, :1, :1].expand_as(out)), "the drop is per sample, not per pixel"
        dropped = out[:, 0, 0] == 10
        torch.testing.assert_close(out[~dropped], torch.full_like(out[~dropped], kept))
        assert abs(dropped.float().mean().item() - rate) < 0.05


def test_a_network_without_drop_path_draws_nothing() -> None:
    drawn: list[bool] = []

    def look(graph: fx.GraphModule, inputs: list[Tensor]) -> fx.GraphModule:
        drawn.append(any("bernoulli" in str(node.target) for node in graph.graph.nodes))
        return graph

    model = small()
    torch.compile(model, backend=look)(images(SIZE))
    model.set_drop_path(0.0)  # a schedule that begins at zero
    torch.compile(model, backend=look)(images(SIZE))
    assert drawn == [False, True]


def test_the_rate_is_kept_outside_the_state_dict_and_comes_back_from_the_meta_device() -> None:
    assert not [key for key in small(drop_path_rate=0.2).state_dict() if "keep_prob" in key]
    model = small(drop_path_rate=0.2, device="meta").to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, DropPath):
            module.init_non_persistent_buffers()
            assert float(module.keep_prob) == pytest.approx(0.8) and module.drop_prob == 0.2
