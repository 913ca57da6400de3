"""The backbone adapter: features, weights, what is frozen, and that both toolboxes find it."""

import os
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import timm
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from safetensors.torch import save_file
from torch import nn

import dots_zoo
from dots_zoo import DotsZooError
from dots_zoo.openmm.progress import quiet
from helpers.public_darts import Network

with quiet():
    from dots_zoo.openmm.backbone import DotsBackbone, _checkpoint_activations

TINY = {"model_name": "cell_mobile", "genotype": "darts_v1", "model_kwargs": {"channels": 4, "layers": 5}}
IMAGES = torch.randn(2, 3, 70, 50, generator=torch.Generator().manual_seed(0))


def tiny(**kwargs: object) -> nn.Module:
    return timm.create_model("cell_mobile", genotype="darts_v1", channels=4, layers=5, **kwargs)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own checkpoint, with a classifier of 7 classes."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(tiny(num_classes=7).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("model", "channels"),
    [(TINY, [4, 16, 32, 64]), ({"model_name": "resnet10t"}, [64, 128, 256, 512])],
    ids=["cell_mobile", "resnet10t"],
)
def test_features_are_timm_s_at_strides_4_to_32(model: dict[str, object], channels: list[int]) -> None:
    backbone = DotsBackbone(**model).eval()
    assert backbone.out_channels == channels and backbone.strides == [4, 8, 16, 32]
    maps = backbone(IMAGES)
    assert isinstance(maps, tuple)
    expected = [(2, chs, -(-70 // s), -(-50 // s)) for chs, s in zip(channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_both_toolboxes_find_it_in_the_root_registry(scope: str) -> None:
    with quiet(), MODELS.switch_scope_and_registry(scope) as registry:
        assert registry.get("DotsBackbone") is DotsBackbone


def test_weights_of_our_training_come_without_their_classifier(weights: Path) -> None:
    network = tiny(num_classes=7)
    dots_zoo.load_public_checkpoint(network, weights)
    backbone = DotsBackbone(**TINY, checkpoint=weights, out_indices=(1, 3)).eval()
    expected = network.eval().forward_intermediates(IMAGES, indices=[1, 3], intermediates_only=True)
    for got, want in zip(backbone(IMAGES), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_weights_of_public_code_and_of_timm_load(tmp_path: Path) -> None:
    genotype = dots_zoo.load_genotype("darts_v1")
    public = Network(genotype, 4, 5, num_classes=10, imagenet=True)
    torch.save({"state_dict": public.state_dict()}, tmp_path / "public.pth")
    backbone = DotsBackbone(**TINY, checkpoint=tmp_path / "public.pth")
    parameters = dict(backbone.body.model.named_parameters())
    torch.testing.assert_close(parameters["stem.0.0.weight"], public.state_dict()["stem0.0.weight"])
    resnet = timm.create_model("resnet10t", num_classes=3)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    loaded = DotsBackbone("resnet10t", checkpoint=tmp_path / "resnet.pth").eval()
    torch.testing.assert_close(loaded(IMAGES)[-1], resnet.eval().forward_features(IMAGES))


def test_a_checkpoint_of_another_width_is_refused(weights: Path) -> None:
    other = {**TINY, "model_kwargs": {"channels": 6, "layers": 5}}
    with pytest.raises(DotsZooError, match=r"model.safetensors: does not fit .* \d+ of another shape"):
        DotsBackbone(**other, checkpoint=weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm_eval": True}, "would freeze random values: pass pretrained=True or checkpoint"),
        ({"frozen_stages": 0}, "would freeze random values"),
        ({"pretrained": True, "checkpoint": "x"}, "pretrained and checkpoint are both set"),
        ({"pretrained": True}, "cell_mobile has no pretrained weights"),
        ({"out_indices": (1, 7)}, "out_indices \\(1, 7\\): feature index 7 is out of range"),
        ({"model_name": "no_such_model", "genotype": None}, "no_such_model: cannot be built with features"),
        ({"model_name": "resnet10t"}, "resnet10t: a genotype is for a network of cells"),
        ({"model_kwargs": {"chanels": 4}}, "chanels"),
    ],
)
def test_bad_arguments_are_told(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DotsZooError, match=message):
        DotsBackbone(**{**TINY, **arguments})


def test_frozen_stages_are_what_the_feature_depends_on(weights: Path) -> None:
    backbone = DotsBackbone(**TINY, checkpoint=weights, frozen_stages=2).train()
    network = backbone.body.model
    until = network.taps[2] + 1 - len(network.stem)  # cells up to the feature of stride 8
    assert until == 1
    for name, parameter in network.named_parameters():
        before = name.startswith("stem") or name.startswith(tuple(f"cells.{i}." for i in range(until)))
        assert parameter.requires_grad == (not before), name
    statistics = {n: b.clone() for n, b in backbone.named_buffers() if n.endswith("running_mean")}
    sum(m.mean() for m in backbone(IMAGES)).backward()
    for name, buffer in backbone.named_buffers():
        if name in statistics:
            frozen = "stem" in name or "cells.0." in name
            assert torch.equal(buffer, statistics[name]) == frozen, name
    with pytest.raises(
        DotsZooError, match=r"frozen_stages: expected -1 or one of out_indices \[1, 2, 3, 4\]"
    ):
        DotsBackbone(**TINY, checkpoint=weights, frozen_stages=0)


def test_norm_eval_keeps_the_statistics_and_trains_the_weights(weights: Path) -> None:
    backbone = DotsBackbone(**TINY, checkpoint=weights, norm_eval=True).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    sum(m.mean() for m in backbone(IMAGES)).backward()
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert all(p.grad is not None for p in backbone.parameters())


def test_recomputed_and_channels_last_features_have_the_same_gradients(weights: Path) -> None:
    gradients = []
    for options in ({}, {"with_cp": True}, {"channels_last": True}):
        backbone = DotsBackbone(**TINY, checkpoint=weights, **options).train()
        maps = backbone(IMAGES)
        sum((m * m).mean() for m in maps).backward()
        assert maps[0].is_contiguous(memory_format=torch.channels_last) == ("channels_last" in options)
        gradients.append(next(backbone.parameters()).grad)
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-3, atol=1e-6)
    with pytest.raises(DotsZooError, match="with_cp: Conv2d cannot recompute activations"):
        _checkpoint_activations(nn.Conv2d(3, 3, 1))


def test_stochastic_depth_reaches_the_network() -> None:
    assert DotsBackbone(**TINY, drop_path_rate=0.3).body.model.drop_path_rate == 0.3


def test_nothing_in_it_looks_like_a_head_with_classes() -> None:
    """mmdet's NumClassCheckHook compares `num_classes` of every module with the data set."""
    assert not any(hasattr(module, "num_classes") for module in DotsBackbone(**TINY).modules())


def test_it_says_where_its_values_come_from(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert DotsBackbone(**TINY, checkpoint=weights).origin() == "DotsBackbone cell_mobile: weights loaded"
    backbone = DotsBackbone(**TINY)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert backbone.origin() == "DotsBackbone cell_mobile: no weights given, training from scratch"


def test_what_mmengine_keeps_of_a_run_is_read_without_unpickling(tmp_path: Path) -> None:
    history = HistoryBuffer()
    for value in (1.0, 2.0, 4.0):
        history.update(value)
    torch.save({"loss": history, "best": np.float32(0.5)}, tmp_path / "run.pth")
    loaded = torch.load(tmp_path / "run.pth", weights_only=True)
    assert loaded["loss"].mean() == pytest.approx(7 / 3) and loaded["best"] == 0.5
    torch.save({"x": os.path.join}, tmp_path / "other.pth")
    torch.save({"x": Reaching()}, tmp_path / "reaching.pth")
    for name in ("other.pth", "reaching.pth"):
        with pytest.raises(UnpicklingError):
            torch.load(tmp_path / name, weights_only=True)


class Reaching:
    """Pickled as getattr(HistoryBuffer, "__init__"), from where one could go on to anything."""

    def __reduce__(self) -> object:
        return getattr, (HistoryBuffer, "__init__")
