"""The count in the ONNX graph against hand formulas and against torch's; what cannot be read is refused."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from dots_zoo import macs
from dots_zoo.export.convert.graph import count, image_input, parse, wiring
from dots_zoo.export.convert.trace import trace
from dots_zoo.runtime.errors import DotsZooError


def build(nodes, weights, image=("batch", 3, 8, 10), outputs=("y",), elem_type=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", elem_type, image)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_convolution_with_groups_stride_and_dilation():
    attributes = {"strides": [2, 1], "dilations": [1, 2], "group": 3}
    node = helper.make_node("Conv", ["image", "w"], ["y"], **attributes)
    costs = count(build([node], {"w": (6, 1, 3, 3)}), "m")
    # (8 - 2 - 1) // 2 + 1 = 3 high, 10 - 4 = 6 wide, 1 * 3 * 3 products an element
    assert costs.macs_by_operator == {"Conv": 6 * 3 * 6 * 9}
    assert costs.macs == 6 * 3 * 6 * 9
    assert costs.uncounted == {}


def test_transposed_convolution():
    node = helper.make_node("ConvTranspose", ["image", "w"], ["y"], strides=[2, 2])
    assert count(build([node], {"w": (3, 5, 2, 2)}), "m").macs == 3 * 8 * 10 * 5 * 4


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_either_side_transposed(transposed: int):
    nodes = [
        helper.make_node("Relu", ["image"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"], axis=1),  # (1, 240)
        helper.make_node("Transpose", ["f"], ["t"], perm=[1, 0] if transposed else [0, 1]),
        helper.make_node("Gemm", ["t", "w", "b"], ["y"], transA=transposed, transB=1),
    ]
    costs = count(build(nodes, {"w": (7, 240), "b": (7,)}), "m")
    assert costs.macs_by_operator == {"Gemm": 1 * 240 * 7}
    assert costs.uncounted == {"Relu": 1, "Flatten": 1, "Transpose": 1}
    assert costs.nodes == {"Relu": 1, "Flatten": 1, "Transpose": 1, "Gemm": 1}


def test_matrix_product_of_stacks():
    node = helper.make_node("MatMul", ["image", "w"], ["y"])  # (1, 3, 8, 10) @ (10, 6)
    assert count(build([node], {"w": (10, 6)}), "m").macs == 3 * 8 * 10 * 6


def test_macs_are_of_one_image_whatever_the_batch():
    node = helper.make_node("Conv", ["image", "w"], ["y"])
    fixed = count(build([node], {"w": (6, 3, 1, 1)}, image=(4, 3, 8, 10)), "m")
    assert (fixed.batch, fixed.macs_by_operator["Conv"], fixed.macs) == (4, 4 * 6 * 80 * 3, 6 * 80 * 3)
    assert count(build([node], {"w": (6, 3, 1, 1)}), "m").batch == 1


def test_operators_of_other_domains_are_not_taken_for_ours():
    node = helper.make_node("Conv", ["image", "w"], ["y"], domain="custom")
    model = build([node], {"w": (6, 3, 1, 1)})
    model.opset_import.append(helper.make_opsetid("custom", 1))
    costs = count(model, "m")
    assert (costs.macs, costs.uncounted) == (0, {"custom::Conv": 1})


def test_shapes_that_the_graph_computes_are_measured():
    nodes = [
        helper.make_node("Shape", ["image"], ["s"]),
        helper.make_node("NonZero", ["s"], ["z"]),  # nothing that follows can be inferred
        helper.make_node("Size", ["z"], ["four"]),
        helper.make_node("Reshape", ["four", "one"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["image", "shape"], ["r"]),  # (4, 60)
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    model = build(nodes, {"w": (60, 5)})
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "rest"))
    assert count(model, "m").macs == 4 * 60 * 5


class Mixed(nn.Module):
    """Convolutions of all kinds, a padding whose size the older exporter computes, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=4, dilation=2, groups=8, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2)
        self.head = nn.Linear(4, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.depthwise(self.stem(image)))
        x = self.up(nn.functional.pad(x, [0, 1, 0, 1])[:, :, 1:, 1:])
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_same_as_torch(exporter: str):
    model = Mixed().eval()
    graph = trace(
        model, torch.randn(2, 3, 17, 21), ["logits"], dynamic=["batch"], opset=18, exporter=exporter
    )
    assert count(graph, "m").macs == macs.count(model, (3, 17, 21)).macs


def test_files_that_are_not_onnx():
    model = build([helper.make_node("Relu", ["image"], ["y"])], {})
    content = model.SerializeToString()
    assert parse(content, "m.onnx") == model
    for broken in (content[:-5], b"\x00\x01not onnx"):
        with pytest.raises(DotsZooError, match="^m.onnx: not an ONNX file, or only a part of one"):
            parse(broken, "m.onnx")
    with pytest.raises(DotsZooError, match="^m.onnx: not an ONNX model: no graph"):
        parse(b"", "m.onnx")


def test_weights_in_another_file_are_refused():
    model = build([helper.make_node("Conv", ["image", "w"], ["y"])], {"w": (6, 3, 1, 1)})
    [weight] = model.graph.initializer
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")
    with pytest.raises(DotsZooError, match="the weight w is in another file; export one self-contained file"):
        parse(model.SerializeToString(), "m.onnx")


@pytest.mark.parametrize(
    ("image", "elem_type", "message"),
    [
        (("batch", 3, "height", 8), TensorProto.FLOAT, r"\[None, 3, None, 8\]; expected \(batch, C, H, W\)"),
        ((2, 3, 8), TensorProto.FLOAT, r"has shape \[2, 3, 8\]"),
        ((2, 3, 8, 8), TensorProto.UINT8, "is UINT8; expected FLOAT"),
    ],
)
def test_inputs_that_are_not_images(image: tuple, elem_type: int, message: str):
    model = build([helper.make_node("Relu", ["image"], ["y"])], {}, image=image, elem_type=elem_type)
    with pytest.raises(DotsZooError, match=message):
        image_input(model, "m.onnx")


def test_one_input_only():
    model = build([helper.make_node("Relu", ["image"], ["y"])], {})
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    with pytest.raises(DotsZooError, match="expected one input, an image; got 2"):
        image_input(model, "m.onnx")


def test_contradictory_shapes():
    nodes = [helper.make_node("Flatten", ["image"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"])]
    with pytest.raises(DotsZooError, match="^m.onnx: "):
        count(build(nodes, {"w": (5, 7)}), "m.onnx")


def test_wiring_looks_through_shared_weights_and_zero_biases():
    plain = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"]),
        helper.make_node("Conv", ["c", "v", "d"], ["y"]),
    ]
    one = build(plain, {"w": (3, 3, 1, 1), "v": (3, 3, 1, 1), "b": (3,), "d": (3,)})
    shared = [
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("Conv", ["c", "v"], ["y"]),
    ]
    assert wiring(one) == wiring(build(shared, {"w": (3, 3, 1, 1)}))


@pytest.mark.parametrize("change", ["input", "attribute", "weight", "output"])
def test_wiring_sees_every_difference(change: str):
    def make(changed: str) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["image" if changed == "input" else "a"], ["b"]),
            helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2 if changed == "attribute" else 3, 3]),
        ]
        weight = (6 if changed == "weight" else 3, 3, 3, 3)
        return build(nodes, {"w": weight}, outputs=["b" if changed == "output" else "c"])

    assert wiring(make("")) == wiring(make("nothing"))
    assert wiring(make("")) != wiring(make(change))
