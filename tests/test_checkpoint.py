"""Public checkpoints load strictly, and give the logits of the public network."""

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import load_checkpoint

import dots_zoo
from dots_zoo.genotype import CellGenotype, Edge
from dots_zoo.public_weights import checkpoint_filter_fn, edge_positions
from helpers.fitting import assert_same, fitted, images
from helpers.public_darts import Network

SIZES = {"mobile": (3, 224, 224), "cifar": (3, 32, 32)}


def public(name: str, macro: str) -> Network:
    network = Network(dots_zoo.load_genotype(name), 4, 5, 7, imagenet=macro == "mobile")
    return fitted(network, SIZES[macro])


def ours(name: str, macro: str, **kwargs: object) -> torch.nn.Module:
    return timm.create_model(f"cell_{macro}", genotype=name, channels=4, layers=5, num_classes=7, **kwargs)


@pytest.mark.parametrize("macro", ["mobile", "cifar"])
@pytest.mark.parametrize(
    "name", ["dots_imagenet", "dots_cifar10", "darts_v2", "p_darts_cifar10", "sgas_imagenet"]
)
def test_logits_are_those_of_the_public_network(name: str, macro: str) -> None:
    network, model = public(name, macro), ours(name, macro, aux_head=True)
    dots_zoo.load_public_checkpoint(model, network.state_dict())
    x = images(SIZES[macro])
    with torch.no_grad():
        logits, _ = network(x)
        scale = (logits[0] - logits[1]).abs().max().item()
        assert scale > 0.05 * logits.abs().max().item()
        assert_same(model.eval()(x), logits, scale)
        trained, trained_auxiliary = network.train()(x)
        for got, expected in zip(model.train()(x), (trained, trained_auxiliary), strict=True):
            assert_same(got, expected, expected.abs().max().item())


def test_a_flexible_cell_loads_by_published_order() -> None:
    # FairDARTS lists one to two edges a node; published order decides which `_ops` is which.
    network, model = public("fair_darts_cifar10_b", "cifar"), ours("fair_darts_cifar10_b", "cifar")
    dots_zoo.load_public_checkpoint(model, network.state_dict())
    x = images(SIZES["cifar"])
    with torch.no_grad():
        logits, _ = network(x)
        assert_same(model.eval()(x), logits, (logits[0] - logits[1]).abs().max().item())


def test_edge_positions_follow_the_published_order() -> None:
    cell = CellGenotype(
        (Edge(3, 0, "none"), Edge(2, 1, "none"), Edge(3, 2, "none"), Edge(5, 0, "none")), (2, 3, 5)
    )
    assert edge_positions(cell) == [(1, 0), (0, 0), (1, 1), (2, 0)]


def test_swapped_edges_change_the_logits() -> None:
    # Edges 0 and 1 of this cell are both sep_conv_3x3, so that nothing but the logits can tell.
    network, model = public("darts_v2", "cifar"), ours("darts_v2", "cifar")
    state = network.state_dict()
    swapped = {
        re.sub(r"_ops\.([01])\.", lambda op: f"_ops.{1 - int(op[1])}.", key): value
        for key, value in state.items()
    }
    assert swapped.keys() == state.keys()
    dots_zoo.load_public_checkpoint(model, swapped)
    x = images(SIZES["cifar"])
    with torch.no_grad():
        logits, _ = network(x)
        with pytest.raises(AssertionError, match="differs"):
            assert_same(model.eval()(x), logits, (logits[0] - logits[1]).abs().max().item())


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_wrappers_and_prefixes(tmp_path: Path, wrap: str | None, prefix: str) -> None:
    network = public("dots_cifar10", "cifar")
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save(state if wrap is None else {wrap: state, "epoch": 3}, tmp_path / "public.pth.tar")
    model = ours("dots_cifar10", "cifar")
    dots_zoo.load_public_checkpoint(model, tmp_path / "public.pth.tar")
    assert torch.equal(model.head.fc.weight, network.classifier.weight)


def test_checkpoints_from_before_step_counters_load() -> None:
    state = {k: v for k, v in public("dots_cifar10", "cifar").state_dict().items() if "num_batches" not in k}
    dots_zoo.load_public_checkpoint(ours("dots_cifar10", "cifar"), state)


def test_timm_loads_public_files(tmp_path: Path) -> None:
    network = public("dots_imagenet", "mobile")
    path = tmp_path / "public.safetensors"
    save_file(network.state_dict(), path)
    overlay = {"file": str(path), "num_classes": 7}
    model = ours("dots_imagenet", "mobile", pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.stem[1][0].weight, network.stem0[3].weight)
    features = ours(
        "dots_imagenet", "mobile", pretrained=True, pretrained_cfg_overlay=overlay, features_only=True
    )
    assert torch.equal(features.model.stem[2][1].weight, network.stem1[1].weight)
    other = ours("dots_imagenet", "mobile")
    load_checkpoint(other, str(path), filter_fn=checkpoint_filter_fn)
    assert torch.equal(other.stem[0][0].weight, network.stem0[0].weight)


def test_other_input_channels_and_classes_adapt(tmp_path: Path) -> None:
    path = tmp_path / "public.safetensors"
    save_file(public("dots_cifar10", "cifar").state_dict(), path)
    overlay = {"file": str(path), "num_classes": 7}
    model = timm.create_model(
        "cell_cifar",
        genotype="dots_cifar10",
        channels=4,
        layers=5,
        num_classes=3,
        in_chans=1,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
    )
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("classifier.bias"), r"1 missing \(first: head.fc.bias\)"),
        (
            lambda state: state.update({"extra.weight": torch.zeros(1)}),
            r"1 left over \(first: extra.weight\)",
        ),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(9)}),
            r"head.fc.bias is \(9,\), expected \(7,\)",
        ),
        (lambda state: state.update({"cells.9._ops.0.op.1.weight": torch.zeros(1)}), "the model has 5 cells"),
        (lambda state: state.update({"cells.0._ops.8.op.1.weight": torch.zeros(1)}), "this cell has 8 edges"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(change, message: str) -> None:  # type: ignore[no-untyped-def]
    state, model = public("dots_cifar10", "cifar").state_dict(), ours("dots_cifar10", "cifar")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change(state)
    with pytest.raises(dots_zoo.DotsZooError, match=message):
        dots_zoo.load_public_checkpoint(model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


def test_files_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, "hostile.pth")
    with pytest.raises(dots_zoo.DotsZooError, match="cannot|can be read safely"):
        dots_zoo.load_public_checkpoint(ours("dots_cifar10", "cifar"), "hostile.pth")
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torn_files_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"torn{suffix}"
    path.write_bytes(content)
    with pytest.raises(dots_zoo.DotsZooError, match="torn.*not a file of weights"):
        dots_zoo.load_public_checkpoint(ours("dots_cifar10", "cifar"), path)


def test_a_missing_file_and_a_foreign_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(dots_zoo.DotsZooError, match="no such checkpoint file"):
        dots_zoo.load_public_checkpoint(ours("dots_cifar10", "cifar"), tmp_path / "absent.pth")
    with pytest.raises(
        dots_zoo.DotsZooError, match="expected a classification model of dots_zoo, got ResNet"
    ):
        dots_zoo.load_public_checkpoint(timm.create_model("resnet18"), {})
