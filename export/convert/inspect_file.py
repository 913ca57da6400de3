"""Read the metadata and the contents of an ONNX file without running it.

Counts are of the graph as it stands: ONNX Runtime fuses nodes before it runs them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from dots_zoo.runtime.errors import DotsZooError

from . import graph

# Operators of the ONNX domain with a CUDA kernel in ONNX Runtime 1.31, by the names of kernels in its
# library. What is not here runs on the CPU, and so does an operator whose kernel does not take its element
# type.
CUDA = set(
    """
    Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast Ceil Clip Compress Concat
    ConcatFromSequence Constant ConstantOfShape Conv ConvTranspose Cos CumSum DeformConv DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax Loop MatMul MatMulInteger Max MaxPool Min Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization RNN
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round Scan Scatter ScatterElements
    ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert
    SequenceLength Shape Shrink Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split
    Sqrt Squeeze Sub Sum Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
    """.split()
)
MAX_PIXELS = 1 << 24  # of an image; a larger one is a mistake or an attack, and counting may run the graph


@dataclass(frozen=True)
class Inspection:
    """The contents of a file.

    inputs, outputs: 'name: type (shape)'. costs: of one image of `size`. no_cuda: operator without a CUDA
    kernel -> nodes.
    """

    metadata: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int
    size: tuple[int, int, int]
    costs: graph.GraphCosts
    no_cuda: dict[str, int]


def inspect(path: Path, size: tuple[int, int] | None = None) -> Inspection:
    """Read a file and count. size: (height, width), for a graph that leaves them open.

    Raises DotsZooError for what cannot be read, is not one whole self-contained ONNX model of images, or
    leaves its image size open where none is given or recorded.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DotsZooError(f"{where}: cannot be read: {error.strerror}") from error
    model = graph.parse(content, where)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    image = at_size(model, size or _recorded(metadata), where)
    weights = {tensor.name for tensor in model.graph.initializer}
    costs = graph.count(image, where)
    return Inspection(
        metadata=metadata,
        inputs=tuple(_value(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_value(value) for value in model.graph.output),
        weights=sum(graph.elements(tensor) for tensor in model.graph.initializer),
        size=graph.image_input(image, where)[2],
        costs=costs,
        no_cuda={operator: n for operator, n in sorted(costs.nodes.items()) if operator not in CUDA},
    )


def lines(inspection: Inspection) -> list[str]:
    """Return the lines of an inspection for a terminal."""
    costs, size = inspection.costs, "x".join(map(str, inspection.size))
    uncounted = {o: n for o, n in costs.uncounted.items() if o != "Constant"}
    return [
        *(f"input   {text}" for text in inspection.inputs),
        *(f"output  {text}" for text in inspection.outputs),
        *(f"{key}: {value}" for key, value in inspection.metadata.items()),
        f"nodes: {_counts(costs.nodes)}",
        f"weights: {inspection.weights:,} elements",
        f"MACs of one image of {size}: {costs.macs:,} ({_counts(costs.macs_by_operator)})",
        f"not counted: {_counts(uncounted)}",
        f"without a CUDA kernel: {_counts(inspection.no_cuda)}",
    ]


def at_size(model: onnx.ModelProto, size: tuple[int, int] | None, where: str) -> onnx.ModelProto:
    """Return a copy with a fixed image size and a float32 input, as graph.count takes it.

    size: (height, width) for those that are open. Raises DotsZooError where one is open and none is given,
    where another one is fixed, and for an image above MAX_PIXELS.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    weights = {tensor.name for tensor in fixed.graph.initializer}
    value = next(value for value in fixed.graph.input if value.name not in weights)
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if len(dims) == 4:
        for dim, extent, axis in zip(dims[2:], size or (0, 0), ("height", "width"), strict=True):
            if not dim.dim_value and not extent:
                raise DotsZooError(f"{where}: leaves its {axis} open: give a size with --input HxW")
            if dim.dim_value and extent and dim.dim_value != extent:
                raise DotsZooError(
                    f"{where}: has a fixed {axis} of {dim.dim_value}, got --input with {extent}"
                )
            dim.dim_value = dim.dim_value or extent
        if dims[2].dim_value * dims[3].dim_value > MAX_PIXELS:
            shape = f"{dims[2].dim_value}x{dims[3].dim_value}"
            raise DotsZooError(
                f"{where}: an image of {shape} pixels, more than {MAX_PIXELS:,}: is not counted"
            )
    if tensor.elem_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8):
        name = f"{value.name} as float32"
        cast = helper.make_node("Cast", [name], [value.name], to=tensor.elem_type)
        fixed.graph.node.insert(0, cast)
        value.name, tensor.elem_type = name, onnx.TensorProto.FLOAT
    return fixed


def _recorded(metadata: dict[str, str]) -> tuple[int, int] | None:
    """Return (height, width) that the file was traced at, None where it does not record them."""
    try:
        [_, height, width] = json.loads(metadata.get("input_size", ""))
        return int(height), int(width)
    except (ValueError, TypeError):
        return None


def _value(value: onnx.ValueInfoProto) -> str:
    """Return 'name: type (shape)' of an input or output."""
    tensor = value.type.tensor_type
    shape = [str(dim.dim_value) if dim.dim_value else dim.dim_param or "?" for dim in tensor.shape.dim]
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} ({', '.join(shape)})"


def _counts(counts: Mapping[str, int]) -> str:
    """Return operators with their counts, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "none"
