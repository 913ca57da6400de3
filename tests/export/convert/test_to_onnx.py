"""A file that exists is proven, says so, and stands alone; a wrong graph is found and leaves no file."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import dots_zoo
from dots_zoo.export.convert import tasks, trace
from dots_zoo.export.convert.options import ExportOptions
from dots_zoo.export.convert.parity import (
    MIN_MOVEMENT,
    ParityError,
    check_parity,
    compare,
    fitted_copy,
    is_unfitted,
    probe_images,
    spread,
)
from dots_zoo.export.convert.tasks import wrap
from dots_zoo.export.convert.to_onnx import Exported, export_onnx, weights_sha256
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import fitted

SIZE = (3, 32, 32)
SMALL = {"genotype": "dots_imagenet", "channels": 4, "layers": 4}


def cell_net(**kwargs: object) -> nn.Module:
    return timm.create_model("cell_mobile", num_classes=7, **SMALL, **kwargs)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return fitted(cell_net(), SIZE)


@pytest.fixture(scope="module")
def done(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("export") / "m.onnx"
    return export_onnx(model, path, ExportOptions(input_size=SIZE, exporter="torchscript"))


def run(content: bytes, images: Tensor) -> list[np.ndarray]:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images.numpy()})


def test_one_file_with_fixed_names_and_a_dynamic_batch(model: nn.Module, done: Exported):
    assert [path.name for path in done.path.parent.iterdir()] == ["m.onnx"]
    graph = onnx.load(done.path, load_external_data=False).graph
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["logits"]
    assert (done.shape, done.outputs) == ((None, *SIZE), ("logits",))
    images = probe_images(5, SIZE, seed=9)  # a batch that was neither traced nor checked
    [logits] = run(done.path.read_bytes(), images)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(images), atol=1e-4, rtol=1e-4)


def test_parity_is_measured_and_written_into_the_file(model: nn.Module, done: Exported):
    [logits] = done.parity.outputs
    assert done.parity.batches == (1, 3)
    assert 0 < logits.max_difference <= done.parity.tolerance * logits.movement == 1e-3 * logits.movement
    assert logits.movement >= MIN_MOVEMENT * logits.largest > 0
    assert not done.fitted_for_check
    stored = {entry.key: entry.value for entry in onnx.load(done.path).metadata_props}
    assert stored == done.metadata
    parity = json.loads(stored["parity"])
    assert parity["error"] == done.parity.error == logits.max_difference / logits.movement
    assert parity["fitted_for_check"] is False
    assert stored["model"] == "cell_mobile"
    assert (stored["task"], stored["opset"], stored["exporter"]) == ("classify", "18", "torchscript")
    assert stored["genotype"].startswith("Genotype(normal=[('dil_conv_5x5', 0), ('skip_connect', 1)")
    assert json.loads(stored["mean"]) == [0.485, 0.456, 0.406]
    assert stored["weights_sha256"] == weights_sha256(model)
    assert stored["torch"] == torch.__version__ and stored["dots_zoo"] == dots_zoo.__version__


def test_weights_sha256_sees_every_value():
    model = nn.Linear(3, 2)
    before = weights_sha256(model)
    assert weights_sha256(copy.deepcopy(model)) == before
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert weights_sha256(model) != before


CHANGES = {
    "training": lambda model: model.train(),
    "half": lambda model: model.half(),
    "channels_last": lambda model: model.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_model_is_left_as_it_was(model: nn.Module, tmp_path: Path, change):
    model = change(copy.deepcopy(model))
    flags = [module.training for module in model.modules()]
    before = {key: (value.clone(), value.stride()) for key, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))
    assert [module.training for module in model.modules()] == flags
    after = model.state_dict()
    assert all(torch.equal(after[k], v) and after[k].stride() == stride for k, (v, stride) in before.items())


def test_features_by_stride(tmp_path: Path):
    model = fitted(cell_net(features_only=True), SIZE)
    done = export_onnx(
        model, tmp_path / "f.onnx", ExportOptions(task="features", input_size=SIZE, exporter="torchscript")
    )
    assert done.outputs == ("feature_2", "feature_4", "feature_8", "feature_16", "feature_32")
    images = probe_images(2, SIZE, seed=9)
    with torch.no_grad():
        expected = model(images)
    for got, want in zip(run(done.path.read_bytes(), images), expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-3, rtol=1e-4)


def test_feature_maps_of_one_stride_have_names_of_their_own():
    model = timm.create_model("test_vit", features_only=True)
    assert wrap(model, "features").outputs == ("feature_16", "feature_16_1", "feature_16_2")


def test_dynamo_with_a_dynamic_batch_in_one_file_without_folder_names(tmp_path: Path):
    model = fitted(timm.create_model("test_byobnet", num_classes=5), SIZE)
    done = export_onnx(model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE))
    assert done.metadata["exporter"] == "dynamo" and done.parity.batches == (1, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    content = done.path.read_bytes()
    assert b"site-packages" not in content and __file__.encode() not in content
    assert len(run(content, probe_images(5, SIZE, seed=9))[0]) == 5


@pytest.mark.parametrize("fuse", [False, True])
def test_open_height_and_width_are_compared_at_other_sizes(model: nn.Module, tmp_path: Path, fuse: bool):
    axes = ("batch", "height", "width")
    done = export_onnx(
        model,
        tmp_path / "m.onnx",
        ExportOptions(input_size=SIZE, exporter="torchscript", dynamic=axes, fuse=fuse),
    )
    assert done.shape == (None, 3, None, None)
    assert done.parity.batches == (1, 3) * 3
    assert done.parity.sizes == ((32, 32), (32, 32), (45, 59), (45, 59), (64, 96), (64, 96))
    shape = onnx.load(done.path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, "height", "width"]
    images = probe_images(2, (3, 41, 77), seed=9)
    [logits] = run(done.path.read_bytes(), images)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(images), atol=1e-3, rtol=1e-4)


def test_a_graph_that_knows_one_size_only_leaves_no_file(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    export = torch.onnx.export

    def fixed(*arguments: object, **options: Any) -> None:
        batches = {name: {0: "batch"} for name in options["dynamic_axes"]}
        export(*arguments, **{**options, "dynamic_axes": batches})

    monkeypatch.setattr(torch.onnx, "export", fixed)
    with pytest.raises(ParityError, match="fails in ONNX Runtime with a batch of 1"):
        export_onnx(
            model,
            tmp_path / "m.onnx",
            ExportOptions(input_size=SIZE, exporter="torchscript", dynamic=("batch", "height")),
        )
    assert list(tmp_path.iterdir()) == []


def test_the_fused_file_is_compared_with_the_model_as_it_was_given(model: nn.Module, tmp_path: Path):
    done = export_onnx(
        model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript", fuse=True)
    )
    assert done.metadata["fused"] == "true" and done.metadata["weights_sha256"] == weights_sha256(model)
    types = [node.op_type for node in onnx.load(done.path).graph.node]
    assert types.count("Conv") < 102 and "BatchNormalization" not in types  # 102 in the plain graph


def test_a_wrong_rewrite_leaves_no_file(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(network: nn.Module, rewrites: object) -> nn.Module:
        fused = dots_zoo.fuse(network)
        with torch.no_grad():
            fused.get_submodule("stem.1.0").bias += 1
        return fused

    monkeypatch.setattr(tasks, "fuse", wrong)
    with pytest.raises(ParityError, match="differs from torch"):
        export_onnx(
            model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript", fuse=True)
        )
    assert list(tmp_path.iterdir()) == []


def test_parity_figures_by_hand():
    """Two images, three classes: differences 0.1 and 0.3 of six; the second answer is another one."""
    images = [torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.2, 0.0]])]  # in torch the logits, too
    weight = np.array([[1.1, 0, 0], [0, 1, 1.5], [0, 0, 1]], np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
    ]
    shapes = {"image": [1, 3, 1, 1], "logits": [1, 3]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    batches = [image[..., None, None] for image in images]
    [figures] = compare(content.SerializeToString(), nn.Flatten(), batches, "m")
    assert figures.max_difference == pytest.approx(0.3) and figures.mean_difference == pytest.approx(0.4 / 6)
    assert (figures.movement, figures.largest, figures.agreement) == (1.0, 1.0, 0.5)
    assert figures.cosine == pytest.approx(0.04 / (0.2 * 0.13**0.5))  # 0.2 * 0.2 over both lengths
    assert figures.mean_movement == pytest.approx(
        (0.5 + 0.1) / 3
    )  # each image is that far from the mean of both
    assert figures.error("max") == figures.max_difference
    assert figures.error("mean") == pytest.approx((0.4 / 6) / 0.2)


def test_a_fixed_batch(model: nn.Module, tmp_path: Path):
    done = export_onnx(
        model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript", dynamic=())
    )
    assert (done.shape, done.parity.batches) == ((1, *SIZE), (1, 1, 1, 1))
    assert onnx.load(done.path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_weights_that_were_never_fitted_are_checked_on_a_fitted_copy(tmp_path: Path):
    fresh = cell_net()
    assert is_unfitted(fresh)
    done = export_onnx(fresh, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))
    assert done.fitted_for_check and json.loads(done.metadata["parity"])["fitted_for_check"] is True
    assert done.metadata["weights_sha256"] == weights_sha256(fresh)
    images = probe_images(3, SIZE, seed=9)
    [logits] = run(done.path.read_bytes(), images)  # the file has the weights that were given
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), fresh.eval()(images), atol=1e-6, rtol=1e-4)


class Shifted(nn.Module):
    """A model's outputs times `scale` plus one."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, image: Tensor) -> Tensor:
        return self.scale * self.model(image) + 1


def traced(model: nn.Module) -> bytes:
    image = probe_images(2, SIZE, 0)
    options = {"dynamic": ["batch"], "opset": 18, "exporter": "torchscript"}
    return trace.trace(model, image, ["logits"], **options).SerializeToString()


@pytest.mark.parametrize(("scale", "message"), [(0.05, "differs from torch"), (1e-4, "less than 0.01 of")])
def test_a_graph_that_ignores_its_input(model: nn.Module, scale: float, message: str):
    """It passes an absolute tolerance as soon as the outputs are small."""
    batches = [probe_images(1, SIZE, 0), probe_images(3, SIZE, 1)]
    wrong = traced(Shifted(model, 0.0).eval())
    right = Shifted(model, scale).eval()
    with torch.no_grad():
        assert np.allclose(run(wrong, batches[1])[0], right(batches[1]), atol=0.2)
    with pytest.raises(ParityError, match=message):
        check_parity(wrong, right, batches, "m")


def rewired(graph: onnx.ModelProto) -> list[onnx.ModelProto]:
    """The graph with one edge swapped, for every node of a cell (Add) and every other tensor of its shape."""
    shapes = {}
    for value in onnx.shape_inference.infer_shapes(graph).graph.value_info:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value for dim in dims[1:])
    wrong = []
    for i, node in enumerate(graph.graph.node):
        if node.op_type == "Add":
            before = [name for earlier in graph.graph.node[:i] for name in earlier.output]
            options = [
                t for t in before if t not in node.input and shapes.get(t) == shapes.get(node.input[0])
            ]
            for other in options[-2:]:
                changed = copy.deepcopy(graph)
                changed.graph.node[i].input[0] = other
                wrong.append(changed)
    return wrong


def test_parity_finds_every_swapped_edge(model: nn.Module, done: Exported):
    batches = [probe_images(1, SIZE, 0), probe_images(3, SIZE, 1)]
    graph = onnx.load(done.path)
    check_parity(graph.SerializeToString(), model, batches, "m")
    changed = rewired(graph)
    assert len(changed) >= 16  # four cells of four nodes
    for wrong in changed:
        with pytest.raises(
            ParityError, match=r"^m: output logits differs from torch by .* the graph is wrong$"
        ):
            check_parity(wrong.SerializeToString(), model, batches, "m")


@pytest.mark.parametrize(("factor", "passes"), [(1 + 1e-5, True), (1 + 2e-2, False)])
def test_parity_is_relative_to_the_movement(model: nn.Module, done: Exported, factor: float, passes: bool):
    graph = onnx.load(done.path)
    [gemm] = [node for node in graph.graph.node if node.op_type == "Gemm"]
    [weight] = [tensor for tensor in graph.graph.initializer if tensor.name == gemm.input[1]]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    batches = [probe_images(4, SIZE, 0)]
    if passes:
        check_parity(graph.SerializeToString(), model, batches, "m")
    else:
        with pytest.raises(ParityError, match="differs from torch by .* 0.001 is allowed"):
            check_parity(graph.SerializeToString(), model, batches, "m")


def test_a_graph_that_was_traced_for_one_batch_only_is_found(model: nn.Module):
    image = probe_images(2, SIZE, 0)
    options = {"dynamic": [], "opset": 18, "exporter": "torchscript"}
    fixed = trace.trace(model, image, ["logits"], **options).SerializeToString()
    with pytest.raises(ParityError, match="fails in ONNX Runtime with a batch of 3"):
        check_parity(fixed, model, [image, probe_images(3, SIZE, 1)], "m")


def test_another_shape_is_found(done: Exported):
    other = fitted(timm.create_model("cell_mobile", num_classes=6, **SMALL), SIZE)
    with pytest.raises(ParityError, match=r"shape \(3, 7\) in ONNX Runtime and \(3, 6\) in torch"):
        check_parity(done.path.read_bytes(), other, [probe_images(3, SIZE, 0)], "m")


def test_another_number_of_outputs_is_found(done: Exported):
    features = cell_net(features_only=True).eval()
    with pytest.raises(ParityError, match="has 1 outputs, and the torch model 5"):
        check_parity(done.path.read_bytes(), features, [probe_images(3, SIZE, 0)], "m")


def test_spread_is_the_largest_difference_between_two_images():
    y = [torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 2.0], [-3.0, 4.0]])]
    assert spread(y) == (4.0, 5.0)


def test_the_fitted_copy_hides_no_branch():
    class Residual(nn.Module):
        """A branch that starts at scale 0, as in many residual networks."""

        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3))
            nn.init.zeros_(self.branch[1].weight)

        def forward(self, image: Tensor) -> Tensor:
            return image + self.branch(image)

    model = Residual().train()
    reference_copy = fitted_copy(model, SIZE, seed=0)
    images = probe_images(4, SIZE, 5)
    with torch.no_grad():
        assert (reference_copy(images) - images).abs().max() > 0.1
    norm = reference_copy.branch[1]
    assert 0.5 <= norm.weight.min() and norm.weight.max() <= 1.5
    with torch.no_grad():  # fitted: the average of two passes, whatever the momentum
        passes = [model.branch[0](probe_images(4, SIZE, seed)) for seed in (1, 2)]
    torch.testing.assert_close(norm.running_mean, sum(p.mean((0, 2, 3)) for p in passes) / 2)
    assert norm.momentum == 0.1 and not norm.training and model.training
    assert is_unfitted(model) and not is_unfitted(reference_copy)


def spoil_exporter(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[nn.Module, onnx.ModelProto], onnx.ModelProto]
) -> None:
    """Let PyTorch's exporter write what `spoil` makes of a module's graph."""
    export = torch.onnx.export

    def spoiled(model: nn.Module, arguments: object, buffer: io.BytesIO, **options: object) -> None:
        export(model, arguments, buffer, **options)
        graph = spoil(model, onnx.load_from_string(buffer.getvalue()))
        buffer.seek(0)
        buffer.truncate()
        buffer.write(graph.SerializeToString())

    monkeypatch.setattr(torch.onnx, "export", spoiled)


def rewire_one(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Swap an edge."""
    return rewired(graph)[-1]


def test_a_wrong_graph_leaves_no_file(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spoil_exporter(monkeypatch, lambda module, graph: rewire_one(graph))
    with pytest.raises(ParityError, match="^cell_mobile: output logits differs from torch") as error:
        export_onnx(model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong_if_unfitted", "message"), [(True, "wires the graph otherwise"), (False, "differs from torch")]
)
def test_a_wrong_graph_of_unfitted_weights_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_if_unfitted: bool, message: str
):
    """Either that of the network, or that of its copy with fitted weights, which is run."""
    spoil_exporter(
        monkeypatch,
        lambda module, graph: rewire_one(graph) if is_unfitted(module) == wrong_if_unfitted else graph,
    )
    with pytest.raises(ParityError, match=message):
        export_onnx(cell_net(), tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))
    assert list(tmp_path.iterdir()) == []


def test_unfitted_weights_that_go_astray_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def astray(module: nn.Module, graph: onnx.ModelProto) -> onnx.ModelProto:
        if is_unfitted(module):
            [gemm] = [node for node in graph.graph.node if node.op_type == "Gemm"]
            [bias] = [tensor for tensor in graph.graph.initializer if tensor.name == gemm.input[2]]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[::-1].copy(), bias.name))
        return graph

    spoil_exporter(monkeypatch, astray)
    with pytest.raises(ParityError, match="where its largest value is .* the graph is wrong"):
        export_onnx(cell_net(), tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))
    assert list(tmp_path.iterdir()) == []


def test_broken_weights(model: nn.Module, tmp_path: Path):
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.get_classifier().weight[0, 0] = torch.nan
    with pytest.raises(ParityError, match="not finite numbers: the weights are broken"):
        export_onnx(model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))


def test_noise_is_refused_with_the_reason(tmp_path: Path):
    edges = [("noise", 0), ("skip_connect", 1)] * 4
    concat = [2, 3, 4, 5]
    text = f"Genotype(normal={edges}, normal_concat={concat}, reduce={edges}, reduce_concat={concat})"
    model = timm.create_model("cell_cifar", genotype=text, channels=4, layers=3)
    reason = r"contains the operation noise \(at cells.0.*\), which is random by definition: no parity"
    with pytest.raises(DotsZooError, match=reason):
        export_onnx(model, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3), {}, "Conv2d has no input size of its own: give one"),
        (lambda: nn.Conv2d(3, 4, 3, device="meta"), {"input_size": SIZE}, "has no weights to export"),
        (lambda: nn.Conv2d(3, 4, 3), {"input_size": (1, 8, 8)}, r"cannot run an input of 1x1x8x8"),
        (lambda: nn.Conv2d(3, 4, 3), {"input_size": SIZE, "task": "features"}, "needs a features_only model"),
        (lambda: cell_net(features_only=True), {}, "task classify needs a model that classifies"),
        (lambda: nn.Conv2d(3, 4, 3), {"input_size": SIZE, "task": "draw"}, "unknown task 'draw'"),
        (
            lambda: nn.Conv2d(3, 4, 3),
            {"input_size": SIZE, "dynamic": ["depth"]},
            "unknown dynamic axis 'depth'",
        ),
        (
            lambda: nn.Conv2d(3, 4, 3),
            {"input_size": SIZE, "fuse": True},
            "fuse rewrites the networks of dots",
        ),
        (lambda: nn.Conv2d(3, 4, 3), {"input_size": (3, 2, 8)}, "cannot run an input of 1x3x2x8"),
    ],
)
def test_what_cannot_be_exported(make, options: dict, message: str, tmp_path: Path):
    with pytest.raises(DotsZooError, match=message):
        export_onnx(make(), tmp_path / "m.onnx", ExportOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_gives_another_opset(
    model: nn.Module, done: Exported, monkeypatch: pytest.MonkeyPatch
):
    spoil_exporter(monkeypatch, lambda module, graph: onnx.load(done.path))
    options = {"dynamic": ["batch"], "opset": 17, "exporter": "torchscript"}
    with pytest.raises(DotsZooError, match="opset 17 was asked for, but the torchscript exporter gave 18"):
        trace.trace(model, probe_images(2, SIZE, 0), ["logits"], **options)


def test_an_exporter_that_gives_up():
    class Branches(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum() > 0 else -image

    options = {"dynamic": ["batch"], "opset": 18, "exporter": "dynamo"}
    with pytest.raises(DotsZooError, match="^the dynamo exporter cannot export this model: "):
        trace.trace(Branches().eval(), probe_images(2, SIZE, 0), ["y"], **options)


def test_an_invalid_graph_leaves_no_file(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """ONNX Runtime runs a graph that declares another number of classes than it has."""

    def misdeclared(module: nn.Module, graph: onnx.ModelProto) -> onnx.ModelProto:
        graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1
        return graph

    spoil_exporter(monkeypatch, misdeclared)
    with pytest.raises(ParityError, match="^cell_mobile: the exported graph is not valid ONNX: "):
        export_onnx(model, tmp_path / "m.onnx", ExportOptions(input_size=SIZE, exporter="torchscript"))
    assert list(tmp_path.iterdir()) == []
