"""Lower precision: float16, and static int8 with real calibration images.

int8 is written as QuantizeLinear / DequantizeLinear pairs (QDQ), which every provider takes and ONNX Runtime
turns into integer operators. The other form, QOperator, is no choice for these networks: onnxruntime.
quantization drops every ReLU there, also those whose input something else reads, and a cell's inputs are
read both with and without a ReLU.
"""

import copy
import logging
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import open_session
from .parity import TOLERANCE, Judged

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "cuda", "tensorrt"]

# (share of the movement of the outputs, whether the largest or the mean difference is held to it). fp32:
# rounding. fp16: half has 11 bits, and errors add up over the depth. int8: 8 bits err by a lot on a single
# element now and then, so that the mean is judged; a graph that ignores its input is off by 1. A deep network
# that was never trained amplifies every rounding and can come near that: then there is no proof, and no file.
TOLERANCES: dict[Precision, tuple[float, Judged]] = {
    "fp32": (TOLERANCE, "max"),
    "fp16": (2e-2, "max"),
    "int8": (0.5, "mean"),
}

WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
GAIN = 0.05  # a layer stays in float where that takes away this share of the error


def to_fp16(model: onnx.ModelProto, half_io: bool) -> onnx.ModelProto:
    """Lower weights and arithmetic to float16; input and output stay float32 unless half_io."""
    with _quiet():
        converted = convert_float_to_float16(model, keep_io_types=not half_io, disable_shape_infer=True)
    ordered = OnnxModel(converted)
    ordered.topological_sort()  # the casts of the input come last otherwise
    graph: onnx.ModelProto = ordered.model
    return graph


def to_int8(
    model: onnx.ModelProto, images: Tensor, target: Target, name: str
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the graph in int8 and the names of the layers that were left in float.

    images: (n, C, H, W) real ones, normalised. Weights have a scale a channel. target: 'cpu' takes unsigned
    activations with a zero point, which its kernels are made for, and leaves the first layer in float, which
    is faster there (three input channels fill no integer kernel); 'cuda' and 'tensorrt' take signed symmetric
    ones, which TensorRT asks for. The other candidates for float are the layers nearest to input and output:
    each is left in float where that lowers the mean error over the calibration images by GAIN or more.
    """
    plain = _unshared(model)
    batches = [image[None].numpy() for image in images]
    layers = [node.name for node in plain.graph.node if node.op_type in WEIGHTED_OPERATORS]
    kept = tuple(layers[:1]) if target == "cpu" else ()
    candidates = sorted({*layers[:2], layers[-1]} - set(kept), key=layers.index)
    expected = _run(plain, batches, name)
    shaped, ranges = _calibrate(plain, batches, symmetric=target != "cpu")
    quantised = _quantise(shaped, ranges, target, kept)
    error = _error(expected, _run(quantised, batches, name))
    for layer in candidates:
        other = _quantise(shaped, ranges, target, (*kept, layer))
        other_error = _error(expected, _run(other, batches, name))
        if other_error < (1 - GAIN) * error:
            quantised, error, kept = other, other_error, (*kept, layer)
    return quantised, kept


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """A reader of calibration batches (1, C, H, W) one by one, as the quantiser asks for them."""

    def __init__(self, image: str, batches: Sequence[NDArray[Any]]) -> None:
        self.feeds = iter([{image: batch} for batch in batches])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self.feeds, None)


def _calibrate(
    model: onnx.ModelProto, batches: Sequence[NDArray[Any]], symmetric: bool
) -> tuple[onnx.ModelProto, Any]:
    """Return the model with the shapes of its tensors, and the range of every tensor over the images.

    Raises DotsZooError where the quantiser's own files have no space.
    """
    with _room(), tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "float.onnx"
        onnx.save(model, path)
        options = {"symmetric": symmetric}
        calibrator = create_calibrator(
            path,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
        )
        calibrator.collect_data(_Reader(model.graph.input[0].name, batches))
        ranges = calibrator.compute_data()
        shaped = load_model_with_shape_infer(path)
    return shaped, ranges


def _quantise(
    model: onnx.ModelProto, ranges: Any, target: Target, in_float: Sequence[str]
) -> onnx.ModelProto:
    """Quantise a copy of the model, except for the layers named in `in_float`."""
    symmetric = target != "cpu"
    float_model = onnx.ModelProto()
    float_model.CopyFrom(model)
    with _quiet():
        quantiser = QDQQuantizer(
            float_model,
            per_channel=True,
            reduce_range=target == "cpu",  # processors without VNNI add pairs of products in 16 bits
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range=copy.deepcopy(ranges),  # the quantiser changes them
            nodes_to_quantize=[],
            nodes_to_exclude=list(in_float),
            op_types_to_quantize=[*QDQRegistry, *QLinearOpsRegistry],
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "TensorQuantOverrides": _ranges_of_outputs(model, ranges),
            },
        )
        quantiser.quantize_model()
    quantiser.model.topological_sort()
    quantised: onnx.ModelProto = quantiser.model.model
    del quantised.graph.value_info[:]  # the types are no longer those of the float graph
    if target == "cpu":
        _integer_relus(quantised)
    return quantised


def _ranges_of_outputs(model: onnx.ModelProto, ranges: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the calibrated range of every graph output, as an override for the quantiser.

    The quantiser gives a tensor that one ReLU and nothing else reads the range of that ReLU, also where the
    tensor is an output too, whose negative values are needed outside the graph.
    """
    return {
        value.name: [dict(zip(("rmin", "rmax"), ranges[value.name].range_value, strict=True))]
        for value in model.graph.output
        if value.name in ranges
    }


def _integer_relus(model: onnx.ModelProto) -> None:
    """Rewrite quantise(relu(dequantise(x))) as max(x, zero point) at the scale of x, where others read x too.

    ONNX Runtime has no integer ReLU: it would go to float and back. A ReLU that is the only reader of its
    input is gone already, unless that is an output: unsigned integers with a zero point of 0 clip by
    themselves.
    """
    source = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    for relu in [node for node in model.graph.node if node.op_type == "Relu"]:
        above, below = source.get(relu.input[0]), readers[relu.output[0]]
        if above is None or above.op_type != "DequantizeLinear" or len(below) != 1:
            continue
        if below[0].op_type != "QuantizeLinear":
            continue
        integers, scale, zero_point = above.input
        relu.op_type = "Max"
        relu.input[:] = [integers, zero_point]
        for reader in readers[below[0].output[0]]:
            reader.input[:] = [relu.output[0], scale, zero_point]
        model.graph.node.remove(below[0])


def _unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every layer has weights of its own and a name.

    Exporters store equal weights once, read through an Identity; the quantiser would see no constant there.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in plain.graph.initializer}
    used: set[str] = set()
    for node in [n for n in plain.graph.node if n.op_type == "Identity" and n.input[0] in weights]:
        weights[node.output[0]] = weights[node.input[0]]
        plain.graph.node.remove(node)
    for index, node in enumerate(plain.graph.node):
        node.name = f"{node.op_type}_{index}"
        for i, name in enumerate(node.input):
            shared = (
                node.op_type in WEIGHTED_OPERATORS and name in used
            )  # the quantiser would give both one scale
            if name in weights and (shared or weights[name].name != name):
                weight = numpy_helper.from_array(numpy_helper.to_array(weights[name]), f"{node.name}_{i}")
                plain.graph.initializer.append(weight)
                node.input[i] = weight.name
            used.add(name)
    return plain


def _run(model: onnx.ModelProto, batches: Sequence[NDArray[Any]], name: str) -> list[NDArray[Any]]:
    """Return every output over all images."""
    session = open_session(model.SerializeToString(), "cpu", 1, name)
    runs = [session.run(None, {model.graph.input[0].name: batch}) for batch in batches]
    return [np.concatenate(output) for output in zip(*runs, strict=True)]


def _error(expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> float:
    """Return the mean difference / the mean magnitude, averaged over the outputs."""
    return float(
        np.mean([np.abs(g - e).mean() / np.abs(e).mean() for e, g in zip(expected, got, strict=True)])
    )


@contextmanager
def _room() -> Iterator[None]:
    """Explain a temporary folder without space."""
    try:
        yield
    except OSError as error:
        raise DotsZooError(
            f"{tempfile.gettempdir()}: int8 keeps the graph there while it is calibrated, and that fails "
            f"({error.strerror}): make space, or set TMPDIR to another folder"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which advises on the root logger to prepare graphs that are prepared."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
