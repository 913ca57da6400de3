"""The ONNX file that is measured, and its metadata."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from dots_zoo.runtime.errors import DotsZooError

from ..convert import graph

# Element types of an image, as ONNX numbers them.
DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
}
MAX_VALUES = 2**29  # of one batch: 2 GiB in float32
QUANTISED = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QuantizeLinear"}
WEIGHTED_OPERATORS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True)
class OnnxFile:
    """One ONNX file at one image size.

    input_name: of the image, of NumPy's `dtype`. size: (C, H, W). dynamic: the graph leaves sizes of its
    input open. macs: of one image. outputs: names, in the graph's order. metadata: as written into the file.
    """

    path: Path
    content: bytes
    model: str
    input_name: str
    dtype: str
    size: tuple[int, int, int]
    dynamic: bool
    precision: str
    params: int
    macs: int
    outputs: tuple[str, ...]
    classes: int | None
    metadata: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.content).hexdigest()

    def images(self, batch: int) -> NDArray[Any]:
        """Return random images (batch, C, H, W) of the input's type, the same every time."""
        noise = np.random.default_rng(0)
        shape = (batch, *self.size)
        if self.dtype == "uint8":
            return noise.integers(0, 256, shape, dtype=np.uint8)
        return noise.standard_normal(shape, dtype=np.float32).astype(self.dtype)

    def open_input(self, batch: int) -> tuple[str, tuple[int, ...]] | None:
        """Return (name, shape) of the input at a batch, None where the graph leaves no size open."""
        return (self.input_name, (batch, *self.size)) if self.dynamic else None

    def parity(self) -> tuple[float | None, float | None]:
        """Return (error, tolerance) of the recorded comparison with torch, in movements of the outputs."""
        try:
            parity = json.loads(self.metadata.get("parity", "{}"))
            return float(parity["error"]), float(parity["tolerance"])
        except (ValueError, KeyError, TypeError):
            return None, None


def read_onnx_file(path: Path, batches: Sequence[int], size: tuple[int, int] | None = None) -> OnnxFile:
    """Read an ONNX file. size: (height, width) of the images, for a graph that leaves them open.

    Raises DotsZooError for a file that is not a whole, self-contained ONNX model of images, and for a batch
    or a size that it does not take.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DotsZooError(f"{where}: cannot be read: {error.strerror}") from error
    model = graph.parse(content, where)
    value = _image(model, where)
    dtype = DTYPES.get(value.type.tensor_type.elem_type)
    if dtype is None:
        got = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise DotsZooError(f"{where}: input {value.name} is {got}; expected FLOAT, FLOAT16 or UINT8 images")
    shape = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[1] is None:
        raise DotsZooError(f"{where}: input {value.name} has shape {shape}; expected (batch, C, H, W)")
    if shape[0] is not None and set(batches) != {shape[0]}:
        raise DotsZooError(
            f"{where}: was exported for a batch of {shape[0]} only, got --batch {list(batches)}"
        )
    fixed = (shape[1], *_fixed(shape[2:], size, where))
    if min(fixed) < 1 or max(batches) * prod(fixed) > MAX_VALUES:
        raise DotsZooError(
            f"{where}: a batch of {max(batches)} images of {'x'.join(map(str, fixed))} is not one that can "
            f"be measured: expected positive sizes and at most {MAX_VALUES:,} values"
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return OnnxFile(
        path=path,
        content=content,
        model=metadata.get("model", path.stem),
        input_name=value.name,
        dtype=dtype,
        size=fixed,
        dynamic=None in shape,
        precision=_precision(model),
        params=_params(model, metadata),
        macs=_macs(model, fixed, where),
        outputs=tuple(output.name for output in model.graph.output),
        classes=_classes(model),
        metadata=metadata,
    )


def _image(model: onnx.ModelProto, where: str) -> onnx.ValueInfoProto:
    """Return the only input that is not a weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise DotsZooError(f"{where}: expected one input, an image; got {len(inputs)}")
    value: onnx.ValueInfoProto = inputs[0]
    return value


def _fixed(graph_size: Sequence[int | None], size: tuple[int, int] | None, where: str) -> tuple[int, int]:
    """Return (height, width) of the images: the graph's, or the given one where it leaves them open."""
    height, width = graph_size
    if size is None:
        if height is None or width is None:
            raise DotsZooError(f"{where}: leaves height and width open: give them with --input HxW")
        return height, width
    if height not in (None, size[0]) or width not in (None, size[1]):
        raise DotsZooError(
            f"{where}: was exported for {height}x{width} pixels, got --input {size[0]}x{size[1]}"
        )
    return size


def _macs(model: onnx.ModelProto, size: tuple[int, int, int], where: str) -> int:
    """Return the MACs of one image of `size`, counted with a float32 input whatever the graph's own type."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    value = _image(fixed, where)
    for dim, extent in zip(value.type.tensor_type.shape.dim[1:], size, strict=True):
        dim.dim_value = extent
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        cast = helper.make_node("Cast", [f"{value.name} as float32"], [value.name])
        cast.attribute.append(helper.make_attribute("to", value.type.tensor_type.elem_type))
        fixed.graph.node.insert(0, cast)
        value.name = cast.input[0]
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return graph.count(fixed, where).macs


def _params(model: onnx.ModelProto, metadata: Mapping[str, str]) -> int:
    """Return the torch model's parameters where the file records them, else the graph's weights."""
    if metadata.get("params", "").isdecimal():
        return int(metadata["params"])
    return sum(int(np.prod(tensor.dims, dtype=np.int64)) for tensor in model.graph.initializer)


def _precision(model: onnx.ModelProto) -> str:
    """Return the precision of the convolutions and matrix products."""
    if any(node.op_type in QUANTISED for node in model.graph.node):
        return "int8"
    used = {name for node in model.graph.node if node.op_type in WEIGHTED_OPERATORS for name in node.input}
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name in used}
    if onnx.TensorProto.FLOAT16 in types:
        return "fp16"
    return "bf16" if onnx.TensorProto.BFLOAT16 in types else "fp32"


def _classes(model: onnx.ModelProto) -> int | None:
    """Return the number of classes, the width of a classifier's only output; None for other graphs."""
    shapes = [output.type.tensor_type.shape.dim for output in model.graph.output]
    return shapes[0][1].dim_value or None if len(shapes) == 1 and len(shapes[0]) == 2 else None
