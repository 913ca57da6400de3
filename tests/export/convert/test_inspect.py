"""A file tells what it is; what is damaged, hostile or no ONNX at all is refused before more is read."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from dots_zoo import macs
from dots_zoo.commands.cli import main
from dots_zoo.export.convert.inspect_file import CUDA, inspect, lines
from dots_zoo.export.convert.options import ExportOptions
from dots_zoo.export.convert.to_onnx import export_onnx
from dots_zoo.runtime.errors import DotsZooError

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model("cell_cifar", genotype="dots_imagenet", channels=4, layers=3, num_classes=7)
    file = tmp_path_factory.mktemp("inspect") / "m.onnx"
    axes = ("batch", "height", "width")
    export_onnx(model, file, ExportOptions(input_size=SIZE, exporter="torchscript", dynamic=axes, fuse=True))
    return file


def save(path: Path, nodes: list, weights: dict[str, np.ndarray], image: tuple = ("n", 3, 8, 10)) -> Path:
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_everything_that_an_export_says(path: Path, capsys: pytest.CaptureFixture[str]):
    inspection = inspect(path)
    assert inspection.inputs == ("image: float (batch, 3, height, width)",)
    assert inspection.outputs == ("logits: float (batch, 7)",)
    assert inspection.size == SIZE  # recorded, since height and width are open
    assert inspection.metadata["model"] == "cell_cifar" and json.loads(
        inspection.metadata["input_size"]
    ) == list(SIZE)
    assert json.loads(inspection.metadata["parity"])["tolerance"] == 1e-3
    assert inspection.no_cuda == {}
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == lines(inspection)
    for text in ("input   image: float (batch, 3, height, width)", "fused: true", "classes: 7"):
        assert text in printed
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["costs"]["nodes"] == inspection.costs.nodes


def test_macs_follow_the_size(path: Path):
    """Chains and sums change no MACs; the three shifts add a depthwise 3x3 each."""
    plain = macs.count(
        timm.create_model("cell_cifar", genotype="dots_imagenet", channels=4, layers=3, num_classes=7), SIZE
    )
    fused = inspect(path)
    assert 0 < fused.costs.macs - plain.macs < 0.05 * plain.macs
    linear = fused.costs.macs_by_operator["Gemm"]
    assert inspect(path, (64, 64)).costs.macs - linear == 4 * (fused.costs.macs - linear)


def test_what_is_counted_what_is_not_and_what_cuda_lacks(tmp_path: Path):
    """By hand: 6 outputs x 80 pixels x 3 inputs."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("Det", ["d"], ["e"]),
        helper.make_node("Add", ["c", "e"], ["y"]),
    ]
    weights = {"w": np.ones((6, 3, 1, 1), np.float32), "d": np.eye(2, dtype=np.float32)}
    inspection = inspect(save(tmp_path / "m.onnx", nodes, weights))
    assert inspection.costs.macs_by_operator == {"Conv": 6 * 80 * 3} and inspection.weights == 18 + 4
    assert inspection.costs.uncounted == {"Det": 1, "Add": 1}
    assert inspection.no_cuda == {"Det": 1}
    assert "without a CUDA kernel: Det 1" in lines(inspection)


def test_cuda_has_these_and_lacks_those():
    """By ONNX Runtime 1.31's own library."""
    assert {"NonMaxSuppression", "TopK", "GatherND", "ScatterND", "ArgMax", "Resize", "RoiAlign"} <= CUDA
    assert not CUDA & {"Det", "Tan", "Acos", "Unique", "QLinearConv", "ConvInteger", "Hardmax"}
    assert all(onnx.defs.has(operator) for operator in CUDA)


def test_integer_operators(tmp_path: Path):
    """QLinearConv has its weight behind the scale and the zero point of its input."""
    one, zero = np.float32(1), np.uint8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    weights = {"s": np.array(one), "z": np.array(zero), "w": np.ones((6, 3, 3, 3), np.uint8)}
    inspection = inspect(save(tmp_path / "m.onnx", nodes, weights))
    assert inspection.costs.macs_by_operator == {"QLinearConv": 6 * 6 * 8 * 27}
    assert inspection.no_cuda == {"QLinearConv": 1} and "QuantizeLinear" in CUDA


def outside(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def outside_in_a_node(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    hidden = onnx.TensorProto()
    hidden.CopyFrom(tensor)
    outside(model, hidden)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=hidden))


def huge(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [1 << 20, 1 << 20, 1, 1]


def negative(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    tensor.dims[:] = [-6, -3, 1, 1]


def large_image(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 1 << 20


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (outside, "the weight w is in another file"),
        (outside_in_a_node, "the weight w is in another file"),
        (huge, "has the shape 1048576x1048576x1x1, but only .* bytes are stored"),
        (negative, "has the shape -6x-3x1x1, but only"),
        (large_image, "an image of 1048576x1048576 pixels, more than 16,777,216"),
    ],
)
def test_hostile_files(harm, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    node = helper.make_node("Conv", ["image", "w"], ["y"])
    path = save(tmp_path / "m.onnx", [node], {"w": np.ones((6, 3, 1, 1), np.float32)})
    model = onnx.load(path)
    harm(model, model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DotsZooError, match=message):
        inspect(path)
    assert main(["inspect", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"dots-zoo: error: {path}: ")


def test_files_that_are_not_whole(path: Path, tmp_path: Path):
    content = path.read_bytes()
    for name, part in {"cut": content[:-100], "text": b"not onnx", "empty": b""}.items():
        (tmp_path / name).write_bytes(part)
        with pytest.raises(DotsZooError, match="not an ONNX"):
            inspect(tmp_path / name)
    with pytest.raises(DotsZooError, match="none.onnx: cannot be read: No such file"):
        inspect(tmp_path / "none.onnx")


def test_sizes(path: Path, tmp_path: Path):
    node = helper.make_node("Relu", ["image"], ["y"])
    free = save(tmp_path / "m.onnx", [node], {}, ("n", 3, "h", "w"))
    with pytest.raises(DotsZooError, match="leaves its height open: give a size with --input HxW"):
        inspect(free)
    assert inspect(free, (5, 7)).size == (3, 5, 7)
    fixed = save(tmp_path / "f.onnx", [node], {})
    with pytest.raises(DotsZooError, match="has a fixed width of 10, got --input with 11"):
        inspect(fixed, (8, 11))
