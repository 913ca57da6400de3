"""A rewritten network computes what it computed, to float64's rounding, with fewer operations."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dots_zoo
from dots_zoo.export.convert.trace import trace
from dots_zoo.fuse.fuse import DEFAULT, REWRITES, fuse, launches
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import fitted, images
from helpers.matrix import mostly_slow

SIZE = (3, 33, 33)  # odd, so that FactorizedReduce pads
SMALL = {"channels": 16, "layers": 4, "num_classes": 7}
ALL = tuple(REWRITES)
NAMES = [name for name in timm.list_models(module="zoo") if not name.startswith("cell_")]
KINDS = ("dots_imagenet", "sgas_cifar10_mobile", "darts_v2", "dots_cifar10_tiny")


def scattered(model: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, with fitted statistics and scales that are nowhere 0 or 1."""
    return fitted(model, SIZE).double()


def outputs(model: nn.Module, size: tuple[int, int, int] = SIZE) -> list[Tensor]:
    with torch.no_grad():
        out = model(images(size, 3).double())
    return [out] if isinstance(out, Tensor) else list(out)


def assert_equal(model: nn.Module, other: nn.Module, size: tuple[int, int, int] = SIZE) -> None:
    for got, want in zip(outputs(other, size), outputs(model, size), strict=True):
        moved = (want.amax(0) - want.amin(0)).max()
        assert moved > 1e-3 * want.abs().max()  # or nothing is compared
        assert (got - want).abs().max() <= 1e-10 * moved


def small(name: str = "dots_imagenet", **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return scattered(timm.create_model(name, **SMALL, **kwargs))


@pytest.mark.parametrize("name", mostly_slow(NAMES, KINDS))
def test_every_registered_model(name: str):
    model = small(name)
    plain = launches(fuse(model, ()))
    for rewrites in (DEFAULT, ALL):
        fused = fuse(model, rewrites)
        assert_equal(model, fused)
        found = launches(fused)
        assert found["conv"] < plain["conv"] and "norm" not in found
        assert found["relu"] + found["add"] < plain["relu"] + plain["add"]


@pytest.mark.parametrize("rewrite", ALL)
def test_every_rewrite_by_itself(rewrite: str):
    model = small()
    assert_equal(model, fuse(model, ["fold", rewrite]), (3, 32, 48))
    assert_equal(model, fuse(model, [rewrite]))


def test_features_are_taken_before_any_relu():
    model = scattered(timm.create_model("dots_imagenet", features_only=True, channels=16, layers=4))
    fused = fuse(model, ALL)
    assert len(outputs(fused)) == 5
    assert_equal(model, fused)
    assert fused.feature_info.channels() == model.feature_info.channels()


def test_nodes_that_read_nodes_of_their_cell(tmp_path: Path):
    """They cannot be computed side by side with what they read, though all of them read one input as well."""
    edges = [[2, 0, "sep_conv_3x3"], [2, 1, "sep_conv_3x3"], [2, 1, "skip_connect"]]
    for node in (3, 4, 5):
        edges += [[node, node - 1, "sep_conv_3x3"], [node, 0, "sep_conv_3x3"], [node, 1, "skip_connect"]]
    cell = {"edges": edges, "concat": [2, 3, 4, 5]}
    file = tmp_path / "genotype.json"
    file.write_text(
        json.dumps({"schema": 1, "name": "deep", "space": "darts", "normal": cell, "reduce": cell})
    )
    model = scattered(timm.create_model("cell_cifar", genotype=str(file), **SMALL))
    assert_equal(model, fuse(model, ALL))


def test_nasbench201():
    model = scattered(
        timm.create_model("cell_nb201", genotype="|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|"
                          "skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|", channels=16, layers=3)
    )  # fmt: skip
    fused = fuse(model, ALL)
    assert_equal(model, fused)
    assert launches(fused)["norm"] == 1  # behind a sum: no convolution to fold it into


def test_dots_imagenet_has_a_third_fewer_convolutions():
    model = timm.create_model("dots_imagenet")
    counts = {rewrites: launches(fuse(model, rewrites))["conv"] for rewrites in ((), DEFAULT, ALL)}
    assert counts[()] == 342
    assert counts[DEFAULT] == 221  # 0.65 of 342
    assert counts[ALL] == 210


@pytest.mark.parametrize("name", ["dots_imagenet", "dropnas_cifar10_mobile", "pc_darts_cifar10_mobile"])
def test_chains_leave_no_slice(name: str):
    """Nodes that another node reads as well would have to be sliced out of what is merged."""
    assert "slice" not in launches(fuse(timm.create_model(name)))


def test_chains_of_dots_imagenet_are_merged_over_up_to_three_nodes():
    fused = fuse(timm.create_model("dots_imagenet"))
    groups = {m.groups for m in fused.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}
    assert groups == {1, 2, 3}


@pytest.mark.parametrize(("channels", "expected"), [(36, set()), (32, {32})])
def test_no_group_that_the_blocked_layout_cannot_take(channels: int, expected: set[int]):
    """36 is no multiple of 16: neither grouped nor concatenated there."""
    fused = fuse(timm.create_model("cell_cifar", genotype="dots_imagenet", channels=channels, layers=3))
    modules = [m for m in fused.modules() if isinstance(m, nn.Conv2d)]
    grouped = {m.out_channels // m.groups for m in modules if 1 < m.groups < m.in_channels}
    assert grouped == expected
    sums = {m.in_channels for name, m in fused.named_children() if name.startswith("sum_")}
    assert not sums & {2 * 36}


def test_the_graph_that_is_exported_has_the_counted_convolutions():
    model = fuse(small().float())

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            return self.model(image)

    options = {"dynamic": ["batch"], "opset": 18, "exporter": "torchscript"}
    graph = trace(Named().eval(), images(SIZE, 2), ["logits"], **options)
    types = [node.op_type for node in graph.graph.node]
    assert types.count("Conv") == launches(model)["conv"]
    assert not {"BatchNormalization", "Pad", "Slice"} & set(types)


@pytest.mark.parametrize("size", [(5, 7), (5, 8), (6, 7), (6, 8)])
def test_the_shift_is_a_depthwise_convolution(size: tuple[int, int]):
    """By hand: output (i, j) of the second branch is W x[2i + 1, 2j + 1], zero beyond the border."""
    fused = fuse(small(), ["shift"])
    shifts = [m for name, m in fused.named_children() if name.startswith("shift_")]
    assert len(shifts) == 3
    pick, x = shifts[0].double(), torch.randn(1, shifts[0].in_channels, *size, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(pick(x), F.pad(x, [0, 1, 0, 1])[:, :, 1::2, 1::2])


def test_the_fold_is_the_formula():
    model = small()
    conv, norm = model.stem[1][0], model.stem[1][1]
    folded = fuse(model, ["fold"]).get_submodule("stem.1.0")
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(folded.weight, conv.weight * scale[:, None, None, None])
    torch.testing.assert_close(folded.bias, norm.bias - norm.running_mean * scale)


def test_the_model_is_left_as_it_is_and_described():
    model = timm.create_model("dots_cifar10", **SMALL).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = dots_zoo.fuse(model)
    assert model.training and not fused.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert fused.pretrained_cfg == model.pretrained_cfg and fused.num_classes == 7
    assert not any(parameter.requires_grad for name, parameter in fused.named_parameters() if "sum" in name)


@pytest.mark.parametrize(
    ("make", "rewrites", "message"),
    [
        (small, ["fold", "magic"], "fuse: unknown rewrite 'magic': expected some of shift, fold, relu"),
        (lambda: nn.Conv2d(3, 4, 3), DEFAULT, "fuse rewrites the networks of dots_zoo .* got Conv2d"),
        (lambda: timm.create_model("test_resnet"), DEFAULT, "got ResNet"),
    ],
)
def test_what_cannot_be_fused(make, rewrites, message: str):
    with pytest.raises(DotsZooError, match=message):
        fuse(make(), rewrites)
