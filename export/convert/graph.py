"""The costs of an ONNX graph, counted in the graph itself, and the wiring of its nodes.

One MAC is one multiplication with its addition; FLOPs are twice that. The formulas are those of the
operators' definitions in the ONNX specification; on convolutions and linear layers they agree with
dots_zoo.macs. Biases, which Conv and Gemm carry along, count nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, shape_inference

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import ORT_ERRORS, open_session

Shape = Sequence[int]
MAX_PER_BYTE = 4  # values in a byte, in the smallest of ONNX's types


@dataclass(frozen=True)
class GraphCosts:
    """One run at `batch` images: the graph's own batch, 1 where it is dynamic.

    macs_by_operator: operator -> MACs. nodes: operator -> nodes. uncounted: operator without a formula ->
    nodes.
    """

    batch: int
    macs_by_operator: Mapping[str, int]
    nodes: Mapping[str, int]
    uncounted: Mapping[str, int]

    @property
    def macs(self) -> int:
        """MACs of one image."""
        return sum(self.macs_by_operator.values()) // self.batch


def _conv(image: Shape, weight: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    return prod(output) * prod(weight[1:])  # weight (out, in / groups, *kernel)


def _conv_transpose(image: Shape, weight: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    return prod(image) * prod(weight[1:])  # weight (in, out / groups, *kernel)


def _gemm(a: Shape, b: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    return prod(output) * a[0 if attributes.get("transA") else 1]


def _matmul(a: Shape, b: Shape, output: Shape, attributes: Mapping[str, Any]) -> int:
    return prod(output) * a[-1]


# operator -> (shapes of the two inputs, shape of the output, attributes) -> MACs
FORMULAS: dict[str, Callable[[Shape, Shape, Shape, Mapping[str, Any]], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
}
SECOND_INPUT = {
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}  # after the scale and the zero point of the first; else 1


def parse(content: bytes, where: str) -> onnx.ModelProto:
    """Return the model in an ONNX file's bytes.

    Raises DotsZooError for what is not one whole, self-contained ONNX model.
    """
    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise DotsZooError(f"{where}: not an ONNX file, or only a part of one: {error}") from error
    if not model.graph.input or not model.graph.output:
        raise DotsZooError(f"{where}: not an ONNX model: no graph with an input and an output in it")
    for tensor in _tensors(model.graph):
        _check_tensor(tensor, where)
    return model


def elements(tensor: onnx.TensorProto) -> int:
    """Return the number of values of a weight, by its shape."""
    return prod(tensor.dims)


def _tensors(part: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that is stored in a graph, and in the graphs and attributes of its nodes."""
    yield from part.initializer
    for sparse in part.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in part.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Refuse a weight outside the file, unread, and a shape that the stored bytes do not fill."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise DotsZooError(
            f"{where}: the weight {tensor.name} is in another file; export one self-contained file"
        )
    stored, size = tensor.ByteSize(), elements(tensor)
    if any(dim < 0 for dim in tensor.dims) or size > MAX_PER_BYTE * stored:
        shape = "x".join(map(str, tensor.dims))
        raise DotsZooError(
            f"{where}: the weight {tensor.name} has the shape {shape}, but only {stored} bytes are stored: "
            "the file is damaged or made to do harm"
        )


def image_input(model: onnx.ModelProto, where: str) -> tuple[str, int | None, tuple[int, int, int]]:
    """Return (name, batch, (C, H, W)) of the image, the only input that is not a weight.

    The batch is None where it is dynamic.

    Raises DotsZooError for several inputs, and for a dynamic size other than the batch.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise DotsZooError(f"{where}: expected one input, an image; got {len(inputs)}")
    [value] = inputs
    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        got = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise DotsZooError(f"{where}: input {value.name} is {got}; expected FLOAT, normalised images")
    match [dim.dim_value or None for dim in tensor.shape.dim]:
        case [batch, int() as channels, int() as height, int() as width]:
            return value.name, batch, (channels, height, width)
        case shape:
            raise DotsZooError(
                f"{where}: input {value.name} has shape {shape}; expected (batch, C, H, W), in which only "
                "the batch may be dynamic (None)"
            )


def count(model: onnx.ModelProto, where: str) -> GraphCosts:
    """Count every node; what If, Loop and Scan hold is not entered, and they are listed as uncounted.

    Raises DotsZooError where the graph is contradictory or cannot be run.
    """
    image, batch, size = image_input(model, where)
    nodes = Counter(_operator(node) for node in model.graph.node)
    counted = [node for node in model.graph.node if _operator(node) in FORMULAS]
    shapes = _inferred_shapes(model, image, where)
    unknown = {t for node in counted for t in _operands(node)} - shapes.keys()
    if unknown:
        shapes |= _measured_shapes(model, image, (batch or 1, *size), sorted(unknown), where)
    macs: Counter[str] = Counter()
    for node in counted:
        first, second, output = (shapes[t] for t in _operands(node))
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        macs[node.op_type] += FORMULAS[node.op_type](first, second, output, attributes)
    uncounted = {operator: count for operator, count in nodes.items() if operator not in FORMULAS}
    return GraphCosts(batch or 1, dict(macs), dict(nodes), uncounted)


def _operands(node: onnx.NodeProto) -> tuple[str, str, str]:
    """Return the names of the two tensors that are multiplied, and of the product."""
    return node.input[0], node.input[SECOND_INPUT.get(node.op_type, 1)], node.output[0]


def _operator(node: onnx.NodeProto) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _inferred_shapes(model: onnx.ModelProto, image: str, where: str) -> dict[str, tuple[int, ...]]:
    """Infer shapes with a dynamic batch of 1; the exporter's own shapes have symbols in them."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in fixed.graph.input:
        if value.name == image and not value.type.tensor_type.shape.dim[0].HasField("dim_value"):
            value.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise DotsZooError(f"{where}: the shapes in this graph contradict each other: {error}") from error
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def _measured_shapes(
    model: onnx.ModelProto, image: str, shape: tuple[int, ...], names: list[str], where: str
) -> dict[str, tuple[int, ...]]:
    """Read shapes off one run on zeros, for graphs that compute their shapes as they run."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(probe.SerializeToString(), "cpu", 0, where)
    try:
        values = session.run(names, {image: np.zeros(shape, np.float32)})
    except ORT_ERRORS as error:
        raise DotsZooError(f"{where}: cannot run an input of {shape}: {error}") from error
    return {name: value.shape for name, value in zip(names, values, strict=True)}


def wiring(model: onnx.ModelProto) -> list[tuple[Any, ...]]:
    """Return the graph without its weights' values: every node as (operator, inputs, attributes).

    An input is the index of its node and output, or the dimensions of a weight. Networks that differ in
    values only are wired alike: exporters leave out a bias of zeros, so that of Conv and Gemm is not looked
    at, and they store equal weights once, read through an Identity, which is looked through.
    """
    source: dict[str, Any] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    source |= {value.name: value.name for value in model.graph.input if value.name not in source}
    nodes: list[tuple[Any, ...]] = []
    for node in model.graph.node:
        inputs = [source.get(name, name) for name in node.input]
        if node.op_type == "Identity" and isinstance(inputs[0], tuple):
            source[node.output[0]] = inputs[0]
            continue
        source |= {name: f"{len(nodes)}:{i}" for i, name in enumerate(node.output)}
        if node.op_type in ("Conv", "Gemm") and isinstance(inputs[-1], tuple):
            inputs = inputs[:2]
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        nodes.append((node.op_type, inputs, attributes))
    return [*nodes, ("outputs", [source[value.name] for value in model.graph.output], [])]
