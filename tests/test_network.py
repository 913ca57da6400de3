"""Cells, macro-architectures and what timm's contract leaves open."""

import csv
import gzip
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from dots_zoo.cell import Cell, Node, ResidualReduction
from dots_zoo.genotype import CellGenotype, Edge, Genotype, GenotypeError, load_genotype
from dots_zoo.macs import count
from dots_zoo.network import CellNet
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import images

TABLE = Path(os.environ.get("DOTS_ZOO_DATA", "../shared/data")) / "nasbench201/nasbench201.csv.gz"


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_a_node_is_the_sum_of_its_edges() -> None:
    node = Node([(0, Times(2.0)), (1, Times(3.0)), (0, nn.Identity())])
    x, y = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    torch.testing.assert_close(node([x, y]), 3 * x + 3 * y)


def test_drop_path_scales_each_sample_of_an_edge_and_spares_identities() -> None:
    node = Node([(0, Times(1.0)), (1, nn.Identity())])
    node.drop_path.drop_prob = 0.5
    x, y = torch.ones(64, 1, 2, 2), torch.full((64, 1, 2, 2), 10.0)
    kept = node.train()([x, y])[:, 0]
    assert set(kept.flatten().tolist()) == {10.0, 12.0}  # the edge is dropped, or scaled by 1 / 0.5
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept)), "the drop is per sample, not per pixel"
    assert torch.equal(node.eval()([x, y])[:, 0], torch.full((64, 2, 2), 11.0))


def cell(*edges: tuple[int, int, str], concat: tuple[int, ...]) -> CellGenotype:
    return CellGenotype(tuple(Edge(*edge) for edge in edges), concat)


def test_only_input_edges_of_a_reduction_cell_have_a_stride() -> None:
    genotype = cell((2, 0, "max_pool_3x3"), (2, 1, "skip_connect"), (3, 2, "max_pool_3x3"), concat=(2, 3))
    built = Cell(genotype, (4, 4), 4, reduction=True, after_reduction=False)
    assert [op.stride for node in built.nodes for op in node.ops if isinstance(op, nn.MaxPool2d)] == [2, 1]
    assert built(torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)).shape == (2, 8, 4, 4)


@pytest.mark.parametrize("edges", [1, 2, 5])
def test_any_number_of_edges_and_any_concat(edges: int) -> None:
    genotype = cell(*[(2, i % 2, "avg_pool_3x3") for i in range(edges)], (5, 2, "sep_conv_3x3"), concat=(5,))
    built = Cell(genotype, (4, 6), 3, reduction=False, after_reduction=False)
    assert built.out_chs == 3
    assert built(torch.randn(2, 4, 8, 8), torch.randn(2, 6, 8, 8)).shape == (2, 3, 8, 8)


def test_a_node_without_edges_is_named_when_it_is_read() -> None:
    with pytest.raises(GenotypeError, match="normal cell: concat reads node 3, which has no incoming edge"):
        CellNet("fair_darts_cifar10_a", "cifar", 4, 3)
    genotype = cell((2, 0, "none"), (4, 3, "none"), concat=(4,))
    with pytest.raises(GenotypeError, match="normal cell: edge none of node 4 reads node 3"):
        Cell(genotype, (4, 4), 4, reduction=False, after_reduction=False)


def test_a_node_without_edges_that_nobody_reads_is_left_out() -> None:
    genotype = cell((2, 0, "none"), (4, 2, "skip_connect"), concat=(2, 4))
    assert len(Cell(genotype, (4, 4), 4, reduction=False, after_reduction=False).nodes) == 2


@pytest.mark.parametrize(
    ("macro", "channels", "layers", "message"),
    [
        ("mobile", 7, 14, "positive even number of channels, got 7"),
        ("cifar", 0, 20, "positive number of channels, got 0"),
        ("cifar", 4, 2, "layers >= 3, got 2"),
        ("nb201", 4, 6, "use macro mobile or cifar"),
        ("imagenet", 4, 6, "macro: expected one of mobile, cifar, nb201, got 'imagenet'"),
    ],
)
def test_impossible_networks_are_refused(macro: str, channels: int, layers: int, message: str) -> None:
    with pytest.raises(DotsZooError, match=message):
        CellNet("dots_cifar10", macro, channels, layers)


def test_nb201_layers_come_in_three_stages() -> None:
    with pytest.raises(DotsZooError, match="divisible by 3, got 7"):
        CellNet("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "nb201", 4, 7)


def test_drop_path_rate_is_a_probability() -> None:
    with pytest.raises(DotsZooError, match=r"in \[0, 1\), got 1.5"):
        CellNet("dots_cifar10", "cifar", 4, 3, drop_path_rate=1.5)


@pytest.mark.parametrize(("macro", "size"), [("mobile", 224), ("mobile", 64), ("cifar", 32), ("cifar", 8)])
def test_auxiliary_head(macro: str, size: int) -> None:
    model = CellNet("dots_cifar10", macro, 4, 4, num_classes=5, aux_head=True)
    logits, auxiliary = model.train()(images((3, size, size)))
    assert logits.shape == auxiliary.shape == (2, 5)
    (logits.sum() + auxiliary.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.eval()(images((3, size, size))).shape == (2, 5)
    model.reset_classifier(3)
    assert [y.shape for y in model.train()(images((3, size, size)))] == [(2, 3), (2, 3)]


def test_auxiliary_head_reads_the_last_reduction() -> None:
    model = CellNet("dots_imagenet", "mobile", 48, 14, aux_head=True)
    assert model.aux_block == 3 + 9 and model.aux_head.conv1.in_channels == 768
    assert "bn2.weight" not in model.aux_head.state_dict()
    assert "bn2.weight" in CellNet("dots_cifar10", "cifar", 4, 3, aux_head=True).aux_head.state_dict()


def test_residual_reduction_handles_odd_maps() -> None:
    x = torch.randn(2, 4, 7, 5)
    assert ResidualReduction(4)(x, x).shape == (2, 8, 4, 3)


@pytest.mark.skipif(not TABLE.exists(), reason="the NAS-Bench-201 table is not there")
@pytest.mark.parametrize("index", [0, 1835, 9930, 15624])
def test_nb201_costs_are_the_benchmarks(index: int) -> None:
    with gzip.open(TABLE, "rt") as file:
        row = next(row for row in csv.DictReader(file) if int(row["index"]) == index)
    model = CellNet(row["arch"], "nb201", 16, 15, num_classes=10, device="meta")
    costs = count(model, (3, 32, 32))
    assert costs.macs == pytest.approx(
        float(row["flops_c10_m"]) * 1e6, abs=500
    )  # the table has three decimals
    assert costs.params == pytest.approx(
        float(row["params_c10_m"]) * 1e6, abs=150
    )  # the table's oddity: +-122


def test_genotype_is_kept() -> None:
    genotype = load_genotype("dots_cifar10")
    model = CellNet(genotype, "cifar", 4, 3)
    assert isinstance(model.genotype, Genotype) and model.genotype == genotype
