"""The contract that every registered name keeps: timm's own matrix, and the rows that timm lacks.

Networks are built narrow and of four cells (two of them reductions): the contract is about the code, and
every name's own cells are in it. Full-size parameters and MACs are in test_zoo.py.
"""

import copy
import itertools
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn

import dots_zoo
from dots_zoo.export.convert.options import ExportOptions
from dots_zoo.export.convert.to_onnx import export_onnx
from dots_zoo.genotype import to_text
from dots_zoo.ops import FactorizedReduce
from helpers.fitting import assert_same, fitted, images, movement
from helpers.matrix import mostly_slow

ANY_CELL = {
    "cell_mobile": "dots_imagenet",
    "cell_cifar": "darts_v2",
    "cell_nb201": "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
}
NAMES = timm.list_models(module="zoo")
MOBILE = (3, 64, 64)
SMALL = (3, 32, 32)


def is_mobile(name: str) -> bool:
    return timm.get_pretrained_cfg(name).input_size == (3, 224, 224)


def size_of(name: str) -> tuple[int, int, int]:
    return MOBILE if is_mobile(name) else SMALL


def build(name: str, **kwargs: object) -> nn.Module:
    small = {
        "channels": 4,
        "layers": 6 if name == "cell_nb201" else 4,
        "num_classes": 10,
        "genotype": ANY_CELL.get(name),
    }
    return timm.create_model(name, **{**small, **kwargs})


# mobile with its own cell and with one of CIFAR, that of CIFAR, any cell, NAS-Bench-201
KINDS = ("dots_imagenet", "sgas_cifar10_mobile", "darts_v2", "cell_cifar", "cell_nb201")
every_name = pytest.mark.parametrize("name", NAMES)
every_kind = pytest.mark.parametrize("name", mostly_slow(NAMES, KINDS))


def test_the_names_are_those_of_the_readme() -> None:
    cifar = (
        "dots_cifar10 dots_cifar100 darts_v1 darts_v2 pc_darts_cifar10 p_darts_cifar10 sgas_cifar10 "
        "dropnas_cifar10 darts_minus_cifar10 darts_minus_cifar100 darts_pt_cifar10"
    )
    expected = [f"{name}{suffix}" for name in cifar.split() for suffix in ("", "_mobile")]
    assert sorted(NAMES) == sorted(
        [*expected, "dots_cifar10_tiny", "dots_imagenet", "pc_darts_imagenet", "sgas_imagenet", *ANY_CELL]
    )


@every_name
def test_forward_and_backward(name: str) -> None:
    model = build(name).train()
    output = model(images(size_of(name)))
    assert output.shape == (2, 10)
    output.mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert torch.isfinite(output).all()


@every_name
def test_cfg_describes_the_model(name: str) -> None:
    model = build(name, num_classes=None)
    cfg = model.pretrained_cfg
    assert {"input_size", "mean", "std", "num_classes", "first_conv", "classifier", "pool_size"} <= set(cfg)
    assert model.num_classes == cfg["num_classes"]
    with torch.no_grad():
        features = model.eval().forward_features(torch.zeros(1, *cfg["input_size"]))
    assert features.shape[-2:] == tuple(cfg["pool_size"])
    assert features.shape[1] == model.num_features == model.head_hidden_size
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert model.get_submodule(cfg["first_conv"]).in_channels == 3


@every_kind
def test_head_options(name: str) -> None:
    x = images(size_of(name))
    model = fitted(build(name), size_of(name))
    with torch.no_grad():
        features = model.forward_features(x)
        assert torch.equal(model.forward_head(features), model(x))
        pooled = features.mean((2, 3))
        assert_same(model.forward_head(features, pre_logits=True), pooled, pooled.abs().max().item())
        model.reset_classifier(0)
        assert_same(model(x), pooled, pooled.abs().max().item())
        model.reset_classifier(0, "")
        assert torch.equal(model(x), features)
        model.reset_classifier(3, "avg")
        assert model(x).shape == (2, 3)
        assert build(name, num_classes=0, global_pool="").eval()(x).shape == features.shape
        assert build(name, in_chans=1).eval()(x[:, :1]).shape == (2, 10)


@every_kind
def test_taps(name: str) -> None:
    size = size_of(name)
    model = fitted(build(name), size)
    x = images(size)
    strides = [2, 4, 8, 16, 32] if is_mobile(name) else [1, 2, 4]
    with torch.no_grad():
        final, taps = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert [tap.shape[2] for tap in taps] == [size[1] // stride for stride in strides]
        assert [tap.shape[1] for tap in taps] == [info["num_chs"] for info in model.feature_info]
        early = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
        assert torch.equal(early[0], taps[1])
        assert torch.equal(model.forward_intermediates(x, indices=1, intermediates_only=True)[0], taps[-1])
        normed = model.forward_intermediates(x, norm=True, intermediates_only=True)
        assert torch.equal(normed[-1], final)
        extractor = build(name, features_only=True)
        extractor.model.load_state_dict(model.state_dict(), strict=False)
        assert extractor.feature_info.reduction() == strides
        for got, expected in zip(extractor.eval()(x), taps, strict=True):
            assert torch.equal(got, expected)


@every_kind
def test_taps_are_not_changed_by_later_layers(name: str) -> None:
    model = fitted(build(name), size_of(name)).train()
    modules = [model.get_submodule(info["module"]) for info in model.feature_info]
    at_the_tap: list[Tensor] = []
    for module in modules:
        module.register_forward_hook(
            lambda _module, _inputs, output: at_the_tap.append(output.detach().clone())
        )
    _, taps = model.forward_intermediates(images(size_of(name)))
    for now, then in zip(taps, at_the_tap, strict=True):
        assert torch.equal(now, then)


@every_kind
def test_pruning_every_subset(name: str) -> None:
    size = size_of(name)
    model = fitted(build(name), size)
    x = images(size)
    whole = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        taps = model.forward_intermediates(x, intermediates_only=True)
        every = range(len(taps))
        for subset in itertools.chain.from_iterable(itertools.combinations(every, k + 1) for k in every):
            pruned = copy.deepcopy(model)
            kept = pruned.prune_intermediate_layers([i - len(taps) for i in subset])
            assert kept == list(subset)
            assert sum(p.numel() for p in pruned.parameters()) < whole
            got = pruned.forward_intermediates(x, indices=kept, intermediates_only=True)
            for i, tap in zip(subset, got, strict=True):
                assert torch.equal(tap, taps[i])


@every_kind
def test_odd_and_small_sizes(name: str) -> None:
    model = fitted(build(name), size_of(name))
    with torch.no_grad():
        for height, width in ((33, 47), (75, 91), (32, 32)):
            taps = model.forward_intermediates(torch.randn(1, 3, height, width), intermediates_only=True)
            for tap, info in zip(taps, model.feature_info, strict=True):
                stride = info["reduction"]
                assert tap.shape[2:] == (-(-height // stride), -(-width // stride))


@every_kind
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    plain, saving = fitted(build(name), size_of(name)).train(), fitted(build(name), size_of(name)).train()
    saving.load_state_dict(plain.state_dict())
    saving.set_grad_checkpointing()
    x = images(size_of(name), 4)
    for model in (plain, saving):
        model(x).square().mean().backward()
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        assert_same(q.grad, p.grad, p.grad.abs().max().item() + 1e-12, 1e-3)
    for (key, p), (_, q) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        assert torch.equal(p, q), f"{key}: the statistics moved when the cell was recomputed"


@every_name
def test_parameter_groups(name: str) -> None:
    model = build(name)
    groups = timm.models.group_parameters(model, model.group_matcher(), reverse=False)
    keys = list(itertools.chain.from_iterable(groups.values()))
    assert sorted(keys) == sorted(key for key, _ in model.named_parameters())
    first, last = groups[min(groups)], groups[max(groups)]
    assert all(key.startswith("stem") for key in first) and "head.fc.weight" in last


@every_kind
def test_channels_last_and_autocast(name: str) -> None:
    model = fitted(build(name), size_of(name))
    scale = movement(model, size_of(name))
    x = images(size_of(name))
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(model(x).float(), expected, scale, 0.2)
        model.to(memory_format=torch.channels_last)
        assert_same(model(x.to(memory_format=torch.channels_last)), expected, scale)


@every_kind
@pytest.mark.filterwarnings("ignore:`torch.jit.(script|trace)` is deprecated:FutureWarning")
def test_script_and_fx(name: str) -> None:
    model = fitted(build(name), size_of(name))
    scale = movement(model, size_of(name))
    x = images(size_of(name))
    with torch.no_grad():
        expected = model(x)
        assert_same(torch.jit.script(model)(x), expected, scale)
        assert_same(fx.symbolic_trace(model)(x), expected, scale)


@every_kind
def test_torch_export(name: str) -> None:
    model = fitted(build(name), size_of(name))
    program = torch.export.export(
        model, (images(size_of(name)),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    x = images(size_of(name), 5)
    with torch.no_grad():
        assert_same(program.module()(x), model(x), movement(model, size_of(name)))


@every_kind
def test_onnx(name: str, tmp_path: Path) -> None:
    exported = export_onnx(
        build(name), tmp_path / "m.onnx", ExportOptions(input_size=size_of(name), exporter="torchscript")
    )
    assert exported.parity.error <= 1e-3 and exported.parity.batches == (1, 3)
    assert exported.metadata["genotype"] == to_text(build(name).genotype)


@pytest.mark.parametrize("name", ["dots_imagenet", "cell_nb201"])
def test_onnx_features(name: str, tmp_path: Path) -> None:
    exported = export_onnx(
        build(name, features_only=True),
        tmp_path / "m.onnx",
        ExportOptions(task="features", input_size=size_of(name), exporter="torchscript"),
    )
    strides = (2, 4, 8, 16, 32) if is_mobile(name) else (1, 2, 4)
    assert exported.outputs == tuple(f"feature_{stride}" for stride in strides)


def test_torch_compile() -> None:
    model = fitted(build("dots_imagenet", layers=3), MOBILE)
    x = images(MOBILE)
    with torch.no_grad():
        expected, scale = model(x), movement(model, MOBILE)
        # One graph, without breaks; what a backend makes of it is torch's own matter, and takes minutes.
        assert_same(torch.compile(model, backend="aot_eager", fullgraph=True)(x), expected, scale)


@every_kind
def test_state_dict_copy_and_pickle(name: str, tmp_path: Path) -> None:
    model = fitted(build(name), size_of(name))
    scale = movement(model, size_of(name))
    x = images(size_of(name))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = build(name).eval()
    with torch.no_grad():
        expected = model(x)
        with pytest.raises(AssertionError, match="differs"):
            assert_same(other(x), expected, scale)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(same(x), expected)


@every_name
def test_initialisation_follows_the_seed(name: str) -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build(name).state_dict())
    first, same, other = models
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["stem.0.0.weight"], other["stem.0.0.weight"])


@every_name
def test_drop_path_is_on_every_edge_but_the_identities(name: str) -> None:
    model = build(name, drop_path_rate=0.3)
    for cell in model.cells:
        for node in getattr(cell, "nodes", []):
            assert node.drop_path.drop_prob == 0.3
            assert node.droppable == [not isinstance(op, nn.Identity) for op in node.ops]
            assert all(
                drop
                for op, drop in zip(node.ops, node.droppable, strict=True)
                if isinstance(op, FactorizedReduce)
            )
    model.set_drop_path(0.1)
    assert {node.drop_path.drop_prob for cell in model.cells for node in getattr(cell, "nodes", [])} == {0.1}
    x = images(size_of(name), 8)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(x), model(x))


@every_name
def test_factory_placement(name: str) -> None:
    model = build(name, device="meta", dtype=torch.float64)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(torch.zeros(1, *size_of(name), device="meta", dtype=torch.float64)).shape == (1, 10)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dots_cifar10_tiny"])
def test_pretrained_fails_with_the_way_out(name: str) -> None:
    with pytest.raises(
        dots_zoo.DotsZooError, match="has no pretrained weights: load your own with .* or train it"
    ):
        build(name, pretrained=True)
