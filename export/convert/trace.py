"""Trace a torch module to an ONNX graph in memory, with either of torch's exporters."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from dots_zoo.runtime.errors import DotsZooError

Exporter = Literal["dynamo", "torchscript"]

INPUT = "image"
AXES = {"batch": 0, "height": 2, "width": 3}  # of the image, that may be dynamic


def trace(
    model: nn.Module,
    image: Tensor,
    outputs: Sequence[str],
    *,
    dynamic: Sequence[str],
    opset: int,
    exporter: Exporter,
) -> onnx.ModelProto:
    """Return the graph of `model(image)` with its weights inside: input `image`, the outputs named in order.

    model: in evaluation mode; its forward has one argument, called `image`. image: (N, C, H, W), N >= 2
    where the batch is to be dynamic, since torch.export takes a batch of one for a constant. dynamic: names
    from AXES. Raises DotsZooError where the exporter gives up, or gives another opset than the requested one.
    """
    with _explained(exporter):
        if exporter == "dynamo":
            graph = _dynamo(model, image, list(outputs), dynamic, opset)
        else:
            graph = _torchscript(model, (image,), [INPUT], list(outputs), dynamic, opset)
    _check_opset(graph, opset, exporter)
    _strip(graph)
    return graph


def trace_parts(
    model: nn.Module,
    arguments: Sequence[Tensor | list[Tensor]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    dynamic: Sequence[str],
    opset: int,
) -> onnx.ModelProto:
    """Trace a module of several arguments, tensors or lists of tensors, with the older exporter.

    inputs: a name for every tensor, in order. Tensors of four dimensions have the dynamic axes, others none.
    Raises DotsZooError as `trace` does.
    """
    with _explained("torchscript"):
        graph = _torchscript(model, tuple(arguments), list(inputs), list(outputs), dynamic, opset)
    _check_opset(graph, opset, "torchscript")
    _strip(graph)
    return graph


@contextmanager
def _explained(exporter: Exporter) -> Iterator[None]:
    """Silence the exporters' warnings, and turn what they raise into one sentence."""
    try:
        with _quiet(), torch.no_grad():
            yield
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise DotsZooError(f"the {exporter} exporter cannot export this model: {reason}") from error


def _check_opset(graph: onnx.ModelProto, opset: int, exporter: Exporter) -> None:
    [got] = [entry.version for entry in graph.opset_import if entry.domain == ""]
    if got != opset:
        raise DotsZooError(
            f"opset {opset} was asked for, but the {exporter} exporter gave {got}: ask for {got}"
        )


def _dynamo(
    model: nn.Module, image: Tensor, outputs: list[str], dynamic: Sequence[str], opset: int
) -> onnx.ModelProto:
    """Trace with the newer exporter: `dynamic` names the axes of `image` that are left open."""
    program = torch.onnx.export(
        model,
        (image,),
        dynamo=True,
        input_names=[INPUT],
        output_names=outputs,
        opset_version=opset,
        dynamic_shapes={INPUT: {AXES[name]: torch.export.Dim(name) for name in dynamic}} if dynamic else None,
        verbose=False,
    )
    assert program is not None  # it is None for the older exporter only
    return program.model_proto


def _torchscript(
    model: nn.Module,
    arguments: tuple[Tensor | list[Tensor], ...],
    inputs: list[str],
    outputs: list[str],
    dynamic: Sequence[str],
    opset: int,
) -> onnx.ModelProto:
    """Trace with the older exporter; `inputs` names the tensors in the arguments, in order."""
    buffer = io.BytesIO()
    tensors = [t for a in arguments for t in ([a] if isinstance(a, Tensor) else a)]
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in outputs} if "batch" in dynamic else {}
    for name, tensor in zip(inputs, tensors, strict=True):
        prefix = "" if len(inputs) == 1 else f"{name}_"
        if tensor.ndim == 4:
            axes[name] = {AXES[axis]: axis if axis == "batch" else f"{prefix}{axis}" for axis in dynamic}
    torch.onnx.export(
        model,
        arguments,
        buffer,  # type: ignore[arg-type]  # the annotation is that of the newer exporter
        dynamo=False,
        input_names=inputs,
        output_names=outputs,
        opset_version=opset,
        dynamic_axes=axes if dynamic else None,
    )
    graph = onnx.load_from_string(buffer.getvalue())
    for value in graph.graph.output:  # this exporter gives sizes that differ one name
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param not in AXES:
                dim.ClearField("dim_param")
    return graph


def _strip(model: onnx.ModelProto) -> None:
    """Drop the stack trace of every node: they name the folders of the machine that exported."""
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the older exporter: it is an explicit choice, and parity judges its traces."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding - Only steps=1 can be", UserWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield
