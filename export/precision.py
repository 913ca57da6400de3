"""Lower precision: float16, and static int8 with real calibration images.

int8 is written as QuantizeLinear / DequantizeLinear pairs (QDQ), which every provider takes and ONNX Runtime
turns into integer operators. Its other form, QOperator, is no choice for these networks: onnxruntime.
quantization drops every ReLU there, also those whose input something else reads, and a cell's inputs are
read both with and without a ReLU.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor

from .session import open_session

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "cuda", "tensorrt"]

# Of the movement of the outputs. fp32: rounding. fp16: half has 11 bits, and errors add up over the depth.
# int8: wide enough for 8 bits, and far below 1, which a graph reaches that ignores its input.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.25}

WEIGHED = ("Conv", "Gemm", "MatMul", "ConvTranspose")
GAIN = 0.05  # a layer stays in float where that takes away this share of the error


def to_fp16(model: onnx.ModelProto, half_io: bool) -> onnx.ModelProto:
    """Weights and arithmetic in float16; input and output stay float32 unless half_io."""
    with _quiet():
        converted = convert_float_to_float16(model, keep_io_types=not half_io, disable_shape_infer=True)
    ordered = OnnxModel(converted)
    ordered.topological_sort()  # the casts of the input come last otherwise
    graph: onnx.ModelProto = ordered.model
    return graph


def to_int8(
    model: onnx.ModelProto, images: Tensor, target: Target, name: str
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The graph in int8, and the layers that were left in float.

    images: (n, C, H, W) real ones, normalised. Weights have a scale a channel. target: 'cpu' takes unsigned
    activations with a zero point, which its kernels are made for; 'cuda' and 'tensorrt' signed symmetric
    ones, which TensorRT asks for. The candidates for float are the layers nearest to input and output, and
    each is left in float where that lowers the mean error over the calibration images by GAIN or more.
    """
    plain = _unshared(model)
    batches = [image[None].numpy() for image in images]
    layers = [node.name for node in plain.graph.node if node.op_type in WEIGHED]
    candidates = sorted({*layers[:2], layers[-1]}, key=layers.index)
    expected = _run(plain, batches, name)
    quantised = _quantise(plain, batches, target, ())
    error = _error(expected, _run(quantised, batches, name))
    kept: tuple[str, ...] = ()
    for layer in candidates:
        other = _quantise(plain, batches, target, (*kept, layer))
        other_error = _error(expected, _run(other, batches, name))
        if other_error < (1 - GAIN) * error:
            quantised, error, kept = other, other_error, (*kept, layer)
    return quantised, kept


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The batches one by one, as the quantiser asks for them."""

    def __init__(self, image: str, batches: Sequence[np.ndarray[Any, Any]]) -> None:
        self.feeds = iter([{image: batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self.feeds, None)


def _quantise(
    model: onnx.ModelProto, batches: Sequence[np.ndarray[Any, Any]], target: Target, in_float: Sequence[str]
) -> onnx.ModelProto:
    symmetric = target != "cpu"
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target_file = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target_file,
            _Reader(model.graph.input[0].name, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(in_float),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
        )
        return onnx.load(target_file)


def _unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every layer has weights of its own and a name.

    Exporters store equal weights once, behind an Identity; the quantiser would see no constant there.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    used: set[str] = set()
    for node in [n for n in plain.graph.node if n.op_type == "Identity" and n.input[0] in weights]:
        weights[node.output[0]] = weights[node.input[0]]
        plain.graph.node.remove(node)
    for number, node in enumerate(plain.graph.node):
        node.name = f"{node.op_type}_{number}"
        for i, name in enumerate(node.input):
            if node.op_type in WEIGHED and name in weights and (name in used or weights[name].name != name):
                own = numpy_helper.from_array(numpy_helper.to_array(weights[name]), f"{node.name}_{i}")
                plain.graph.initializer.append(own)
                node.input[i] = own.name
            used.add(name)
    return plain


def _run(
    model: onnx.ModelProto, batches: Sequence[np.ndarray[Any, Any]], name: str
) -> list[np.ndarray[Any, Any]]:
    """Every output over all images."""
    session = open_session(model.SerializeToString(), "cpu", 1, name)
    runs = [session.run(None, {model.graph.input[0].name: batch}) for batch in batches]
    return [np.concatenate(output) for output in zip(*runs, strict=True)]


def _error(expected: Sequence[np.ndarray[Any, Any]], got: Sequence[np.ndarray[Any, Any]]) -> float:
    """Mean difference as a share of the mean magnitude, the mean over the outputs."""
    return float(
        np.mean([np.abs(g - e).mean() / np.abs(e).mean() for e, g in zip(expected, got, strict=True)])
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger to prepare graphs that are prepared."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
