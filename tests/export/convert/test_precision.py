"""float16 and int8: what is stored, what is left in float, how far it may be from torch, what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from PIL import Image
from torch import nn

from dots_zoo.export.convert import precision
from dots_zoo.export.convert.options import ExportOptions, Lowering
from dots_zoo.export.convert.parity import ParityError
from dots_zoo.export.convert.prove import read_images
from dots_zoo.export.convert.to_onnx import Exported, export_onnx
from dots_zoo.export.ort_session import open_session
from dots_zoo.fuse.fuse import DEFAULT
from dots_zoo.runtime.errors import DotsZooError
from helpers import shared_cifar
from helpers.fitting import fitted, images

SIZE = (3, 32, 32)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    small = {"genotype": "dots_imagenet", "channels": 4, "layers": 3, "num_classes": 7}
    return fitted(timm.create_model("cell_cifar", **small), SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of several sizes and modes, two folders deep."""
    root = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(images((3, 40, 50), 16, seed=3)):
        pixels = ((image * 0.25 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels).resize((40 + i, 50 - i))
        (root / f"{i % 2}").mkdir(exist_ok=True)
        picture.convert("L" if i == 3 else "RGB").save(root / f"{i % 2}" / f"{i:02}.png")
    return root


def export(model: nn.Module, path: Path, fuse: bool = True, **lowering: object) -> Exported:
    options = ExportOptions(input_size=SIZE, exporter="torchscript", lowering=Lowering(**lowering), fuse=fuse)
    return export_onnx(model, path, options)


@pytest.fixture(scope="module")
def int8(model: nn.Module, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("int8") / "m.onnx"
    return export(model, path, fuse=False, precision="int8", calibration=folder)


def test_fp16_has_half_the_bytes_and_float32_at_both_ends(model: nn.Module, tmp_path: Path):
    done = export(model, tmp_path / "m.onnx", precision="fp16")
    whole = export(model, tmp_path / "w.onnx")
    graph = onnx.load(done.path).graph
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert types == {TensorProto.FLOAT}
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    assert whole.parity.error < 1e-5 < done.parity.error <= done.parity.tolerance == 2e-2
    assert done.metadata["precision"] == "fp16" and done.metadata["fused"] == "true"
    assert tuple(json.loads(done.metadata["rewrites"])) == DEFAULT


def test_fp16_at_both_ends_where_asked(model: nn.Module, tmp_path: Path):
    done = export(model, tmp_path / "m.onnx", precision="fp16", half_io=True)
    graph = onnx.load(done.path).graph
    assert [v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)] == [TensorProto.FLOAT16] * 2
    assert 0 < done.parity.error <= 2e-2


def test_int8_for_the_cpu(int8: Exported):
    """Unsigned activations, weights of seven bits with one scale a channel, the first layer in float."""
    graph = onnx.load(int8.path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    source = {name: node for node in graph.node for name in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    in_float = json.loads(int8.metadata["float_layers"])
    assert in_float[0] == convs[0].name and len(in_float) < 4
    for node in convs:
        if node.name in in_float:
            assert node.input[1] in weights  # float32, no DequantizeLinear before it
            continue
        data, weight = source[node.input[0]], source[node.input[1]]
        assert data.op_type == weight.op_type == "DequantizeLinear"
        assert weights[data.input[2]].dtype == np.uint8
        stored, scale = weights[weight.input[0]], weights[weight.input[1]]
        assert stored.dtype == np.int8 and scale.shape == (stored.shape[0],)
        assert np.abs(stored.astype(int)).max() <= 64  # two products with 255 fit in 16 bits
    assert (int8.metadata["quantised_for"], int8.metadata["calibration_images"]) == ("cpu", "12")
    assert (int8.parity.judged, int8.parity.tolerance) == ("mean", 0.5)
    assert int8.parity.batches == (3, 1) and 0 < int8.parity.error <= 0.5  # the four that were held out


def test_int8_keeps_every_relu(int8: Exported):
    """A cell's inputs are read with and without a ReLU; integers take it as a maximum with the zero point."""
    graph = onnx.load(int8.path).graph
    source = {name: node for node in graph.node for name in node.output}
    maxima = [node for node in graph.node if node.op_type == "Max"]
    assert maxima
    for node in graph.node:
        if node.op_type == "Relu":  # behind the layer that was left in float
            assert source[node.input[0]].op_type != "DequantizeLinear"
    for node in maxima:
        assert source[node.input[0]].op_type == "QuantizeLinear"
        assert source[node.input[0]].input[2] == node.input[1]


def test_int8_goes_through_the_rewrites_without_being_asked(
    model: nn.Module, int8: Exported, folder: Path, tmp_path: Path
):
    """No batch norm, no slice and no padding are left that would go back to float, and no grouped 1x1."""
    graph = onnx.load(int8.path).graph
    operators = [node.op_type for node in graph.node]
    assert not {"BatchNormalization", "Slice", "Pad"} & set(operators)
    assert int8.metadata["fused"] == "true"
    assert json.loads(int8.metadata["rewrites"]) == ["shift", "fold", "relu", "sums", "early_relu"]
    requested = export(model, tmp_path / "requested.onnx", precision="int8", calibration=folder)
    assert [node.op_type for node in onnx.load(requested.path).graph.node] == operators
    plain = export(model, tmp_path / "plain.onnx", fuse=False)
    assert {"Slice", "Pad"} <= {node.op_type for node in onnx.load(plain.path).graph.node}
    assert plain.metadata["fused"] == "false" and json.loads(plain.metadata["rewrites"]) == []


def test_int8_of_another_network_of_timm_needs_no_rewrites(folder: Path, tmp_path: Path):
    other = fitted(timm.create_model("test_byobnet", num_classes=5), SIZE)
    done = export(other, tmp_path / "m.onnx", fuse=False, precision="int8", calibration=folder)
    assert done.metadata["fused"] == "false" and json.loads(done.metadata["rewrites"]) == []
    with pytest.raises(DotsZooError, match="fuse rewrites the networks of dots_zoo"):
        export(other, tmp_path / "fused.onnx", precision="int8", calibration=folder)


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_int8_for_a_gpu_is_signed_and_symmetric(model: nn.Module, folder: Path, tmp_path: Path, target: str):
    done = export(model, tmp_path / "m.onnx", precision="int8", calibration=folder, target=target)
    graph = onnx.load(done.path).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    points = [weights[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert points and all(point.dtype == np.int8 and not point.any() for point in points)
    assert not [node for node in graph.node if node.op_type == "Max"]
    assert done.metadata["quantised_for"] == target and 0 < done.parity.error <= 0.5


def test_int8_of_weights_that_were_never_fitted(folder: Path, tmp_path: Path):
    """Their batch norms are all alike, and exporters store equal tensors once."""
    small = {"genotype": "dots_imagenet", "channels": 4, "layers": 3, "num_classes": 7}
    fresh = timm.create_model("cell_cifar", **small)
    lowering = Lowering(precision="int8", calibration=folder)
    options = ExportOptions(input_size=SIZE, exporter="torchscript", lowering=lowering)
    done = export_onnx(fresh, tmp_path / "m.onnx", options)
    assert done.fitted_for_check and done.path.exists()


def test_a_network_that_was_never_fitted_may_amplify_the_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(precision.TOLERANCES, "fp16", (1e-9, "max"))
    fresh = timm.create_model("test_byobnet", num_classes=5)
    message = "the graph is wrong, or these weights, which were never fitted and amplify the rounding of fp16"
    with pytest.raises(ParityError, match=message):
        export(fresh, tmp_path / "m.onnx", fuse=False, precision="fp16")
    with pytest.raises(ParityError, match="the graph is wrong$"):
        export(fitted(fresh, SIZE), tmp_path / "m.onnx", fuse=False, precision="fp16")
    assert not list(tmp_path.iterdir())


def relus(values: np.ndarray) -> np.ndarray:
    """Of a graph relu(x) + x, with x read twice, in int8 as to_int8 writes it."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["x"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["s"]),
        helper.make_node("Conv", ["s", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 4, 4]) for name in ("image", "y")]
    identity = np.ones((1, 1, 1, 1), np.float32)
    weights = [numpy_helper.from_array(identity, name) for name in "wv"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    quantised, _ = precision.to_int8(model, torch.from_numpy(values), "cpu", "m")
    [y] = open_session(quantised.SerializeToString(), "cpu", 1, "m").run(None, {"image": values})
    return y


def test_an_input_that_is_read_with_and_without_a_relu():
    values = np.random.default_rng(0).uniform(-1, 1, (8, 1, 4, 4)).astype(np.float32)
    got = relus(values)
    assert np.abs(got - (np.maximum(values, 0) + values)).max() < 0.03  # three roundings of at most 3 / 510


@pytest.mark.parametrize(("coarse", "in_float"), [(3, ("Conv_0", "Conv_3")), (2, ("Conv_0",))])
def test_a_layer_stays_in_float_only_where_that_helps(coarse: int, in_float: tuple[str, ...]):
    """The first layer of the CPU is given; of the two next to the ends the one whose rounding counts.

    Four convolutions pass channel 1 on. The coarse one has a weight of 100 for channel 0, which is zero: what
    it has for channel 1 is rounded to nothing at that scale.
    """
    convs = [helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(4)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 2, 2]) for name in ("t0", "t4")]
    weights = [np.diag([0, 1]).astype(np.float32) for _ in convs]
    weights[coarse][1, 0] = 100
    given = [numpy_helper.from_array(w[:, :, None, None], f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(convs, "g", ends[:1], ends[1:], given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    images = torch.rand(4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert precision.to_int8(model, 0.3 * images, "cpu", "m")[1] == in_float


def test_an_int8_graph_that_is_wrong_leaves_no_file(
    model: nn.Module, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As QOperator of onnxruntime.quantization is for these networks: without any ReLU, here in float."""

    def without_relus(quantiser: QDQQuantizer) -> None:
        for node in quantiser.model.model.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Identity"

    monkeypatch.setattr(QDQQuantizer, "quantize_model", without_relus)
    with pytest.raises(ParityError, match=r"differs from torch by .* on average, .* 0\.5 is allowed"):
        export(model, tmp_path / "m.onnx", precision="int8", calibration=folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "unknown precision 'int4': expected fp32, fp16, int8"),
        ({"precision": "int8"}, "int8 needs --images FOLDER"),
        ({"calibration": Path("photos")}, "--images is for --precision int8, got fp32"),
        ({"half_io": True}, "float16 inputs and outputs are for --precision fp16, got fp32"),
        (
            {"precision": "fp16", "target": "cuda"},
            "a file for cuda differs with --precision int8 only",
        ),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str):
    with pytest.raises(DotsZooError, match=message):
        Lowering(**options)


def test_calibration_images_are_normalised_middles(tmp_path: Path):
    """By hand: a 10x30 image, red left, green middle, blue right; its 10x10 middle is green."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    for channel in range(3):
        pixels[:, 10 * channel : 10 * channel + 10, channel] = 255
    for i in range(8):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    calibration, held_out = read_images(tmp_path, (3, 5, 5), MEAN, STD)
    assert (len(calibration), len(held_out)) == (6, 2)
    green = torch.tensor([(0 - 0.5) / 0.2, (1 - 0.4) / 0.25, (0 - 0.3) / 0.3])
    torch.testing.assert_close(calibration[0], green[:, None, None].expand(3, 5, 5))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda path: path.rmdir(), "no such calibration folder; give one"),
        (lambda path: None, r"expected at least 8 images .*\.png.* got 0"),
        (lambda path: (path / "notes.txt").write_text("x"), "got 0$"),
        (lambda path: [(path / f"{i}.jpg").write_bytes(b"x") for i in range(8)], "0.jpg: expected an image"),
    ],
)
def test_calibration_folders_that_cannot_be_used(fill, message: str, model: nn.Module, tmp_path: Path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    fill(folder)
    with pytest.raises(DotsZooError, match=message) as error:
        export(model, out / "m.onnx", precision="int8", calibration=folder)
    assert error.value.exit_code == 2 and list(out.iterdir()) == []


@shared_cifar.needed
def test_int8_of_a_trained_network_answers_as_float_does(tmp_path: Path):
    """On test images of CIFAR-10: 98 % the same answer, accuracy down by 0.5 points at most."""
    data = shared_cifar.test_images(1064)
    network = timm.create_model("dots_cifar10_tiny", pretrained=True).eval()
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(64):  # not those that are asked about
        Image.fromarray(data.images[i].permute(1, 2, 0).numpy()).save(photos / f"{i:03}.png")
    done = export(network, tmp_path / "m.onnx", precision="int8", calibration=photos)
    session = open_session(done.path.read_bytes(), "cpu", 1, "m")
    same = right = right_in_float = 0
    for indices in torch.arange(64, 1064).split(500):
        batch = data.test_batch(indices).contiguous()
        with torch.no_grad():
            expected = network(batch).argmax(1)
        got = torch.from_numpy(session.run(None, {"image": batch.numpy()})[0]).argmax(1)
        same += int((got == expected).sum())
        right += int((got == data.test_labels[indices]).sum())
        right_in_float += int((expected == data.test_labels[indices]).sum())
    assert same >= 0.98 * 1000
    assert right >= right_in_float - 0.005 * 1000
