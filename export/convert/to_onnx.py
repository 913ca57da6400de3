"""From a torch model to one self-contained ONNX file that is proven before it exists.

Fuse where asked, trace, lower the precision, parity in ONNX Runtime; what the task has around the network,
and parity of the whole; onnx.checker, metadata, and only then the file. A network that was never fitted
answers every image alike, so its own outputs cannot tell a right graph from a wrong one: a copy with fitted
statistics is exported by the same path and compared instead, and the two graphs must be wired alike.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch
from onnx import helper
from torch import Tensor, nn

import dots_zoo
from dots_zoo.fuse.fuse import DEFAULT
from dots_zoo.genotype import to_text
from dots_zoo.macs import count
from dots_zoo.network import CellNet
from dots_zoo.ops import Noise
from dots_zoo.reference import weights_sha256
from dots_zoo.runtime.atomic_write import check_output, write_file
from dots_zoo.runtime.errors import DotsZooError

from .calibration import read_images
from .graph import wiring
from .parity import (
    Parity,
    ParityError,
    check_parity,
    check_values,
    fitted_copy,
    is_unfitted,
    moves,
    probe_images,
    run_torch,
    spread,
)
from .pre_post import Ends, Surface
from .precision import TOLERANCES, Precision, Target, to_fp16, to_int8
from .tasks import ends_of, fused, is_fusible, wrap
from .trace import AXES, Exporter, trace

# What a network of dots_zoo goes through before it is quantised: its slices and padding would go back to
# float. Without chains: grouped pointwise convolutions have no integer kernel for channels-last maps.
INT8_REWRITES = tuple(name for name in DEFAULT if name != "chains")
LAST_STRIDE = 32  # of the backbones of detectors and segmenters


@dataclass(frozen=True)
class Exported:
    """What was written and measured.

    shape: of the input, (batch, C, H, W), None for what is dynamic. outputs: their names, in order.
    fitted_for_check: parity was measured on a copy with fitted statistics, as the weights were never fitted.
    answers: what a task around the network was measured by, such as the share of matched boxes. metadata:
    what the file says of itself.
    """

    path: Path
    shape: tuple[int | None, int, int | None, int | None]
    outputs: tuple[str, ...]
    parity: Parity
    fitted_for_check: bool
    answers: dict[str, Any]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Lowering:
    """The precision of a graph: 'fp32', 'fp16', or 'int8' for a target ('cpu', 'cuda', 'tensorrt').

    half_io: input and output are float16 too. calibration: folder of images, for int8.
    """

    precision: Precision = "fp32"
    target: Target = "cpu"
    half_io: bool = False
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in TOLERANCES:
            raise DotsZooError(f"unknown precision {self.precision!r}: expected {', '.join(TOLERANCES)}")
        if (self.precision == "int8") != (self.calibration is not None):
            raise DotsZooError(
                "int8 needs --calibration FOLDER with images of the kind to expect"
                if self.precision == "int8"
                else f"--calibration is for --precision int8, got {self.precision}"
            )
        if self.half_io and self.precision != "fp16":
            raise DotsZooError(f"float16 inputs and outputs are for --precision fp16, got {self.precision}")
        if self.target != "cpu" and self.precision != "int8":
            raise DotsZooError(f"--for {self.target} changes int8 graphs only, got {self.precision}")


FP32 = Lowering()
PLAIN = Surface()


def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    task: str = "classify",
    input_size: tuple[int, int, int] | None = None,
    dynamic: Sequence[str] = ("batch",),
    lowering: Lowering = FP32,
    surface: Surface = PLAIN,
    fuse: bool = False,
    opset: int = 18,
    exporter: Exporter = "dynamo",
    seed: int = 0,
) -> Exported:
    """Export `model` in evaluation mode, and leave the model itself as it is.

    task: a name from tasks.TASKS. input_size: (C, H, W), None for the model's own. dynamic: which of the
    input's sizes are left open; the batch is 1 where it is not. surface: of detectors and segmenters. fuse:
    rewrite a network of dots_zoo into fewer operations first, which int8 does in any case. seed: of the test
    images. Raises ParityError where the graph is not proven and DotsZooError where the model cannot be
    exported; there is no file then.
    """
    check_output(Path(path))
    if unknown := set(dynamic) - AXES.keys():
        raise DotsZooError(f"unknown dynamic axis {min(unknown)!r}: expected some of {', '.join(AXES)}")
    ends = ends_of(task, surface)
    if ends and lowering.half_io:
        raise DotsZooError(f"float16 inputs and outputs are for the tasks classify and features, got {task}")
    name, size = _identify(model, input_size)
    if ends and min(size[1:]) < LAST_STRIDE:
        raise DotsZooError(
            f"{name}: task {task} expected an input of {LAST_STRIDE}x{LAST_STRIDE} pixels or more, below "
            f"which the backbone's last map is nothing but filling; got {size[1]}x{size[2]}"
        )
    subject = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval()
    for part in subject.modules():
        if hasattr(part, "channels_last"):  # a DotsBackbone's, for torch's CPU kernels
            part.channels_last = False  # type: ignore[assignment]
    wrapped = wrap(subject, task)
    around = ends.metadata(subject, size, dynamic) if ends else {}
    costs = count(model, size)
    calibration, batches = _images(model, size, dynamic, lowering, seed)
    image = probe_images(2 if "batch" in dynamic else 1, size, seed)  # not a batch size that is checked
    rewrites = _rewrites(subject, task, fuse, lowering.precision)

    def make(network: nn.Module) -> _Made:
        module = wrap(fused(network, task, rewrites) if rewrites else network, task).module.eval()
        graph = trace(module, image, wrapped.outputs, dynamic=dynamic, opset=opset, exporter=exporter)
        return _lower(graph, lowering, calibration, name)

    def finish(graph: onnx.ModelProto) -> onnx.ModelProto:
        if ends is None:
            return graph
        return ends.attach(graph, subject, size, dynamic=dynamic, opset=opset)

    telling, stand_in = _stand_in(subject, task, ends, batches, size, seed, name)
    made = make(subject)
    twin = None if stand_in is None else make(stand_in)
    precision = lowering.precision
    parity = _prove(made, subject, twin, stand_in, telling, task, batches, name, precision)
    graph, answers = finish(made.graph), {}
    if ends:
        whole = graph if twin is None else finish(twin.graph)
        shown = subject if stand_in is None else stand_in
        with _amplified(telling, precision):
            answers = ends.check(whole.SerializeToString(), shown, batches, precision, name)
    metadata = {
        "model": name,
        "task": task,
        "params": str(costs.params),
        "macs": str(costs.macs),
        "weights_sha256": weights_sha256(model),
        "precision": precision,
        "fused": json.dumps(bool(rewrites)),
        "rewrites": json.dumps(rewrites),
        "input_size": json.dumps(size),
        "opset": str(opset),
        "exporter": exporter,
        "parity": json.dumps({**parity.as_dict(), "fitted_for_check": not telling, **answers}),
        **made.metadata,
        **wrapped.metadata,
        **around,
        **_describe(model),
    }
    channels, height, width = size
    return Exported(
        path=_write(graph, metadata, Path(path), name),
        shape=(
            None if "batch" in dynamic else 1,
            channels,
            None if "height" in dynamic else height,
            None if "width" in dynamic else width,
        ),
        outputs=ends.outputs if ends else wrapped.outputs,
        parity=parity,
        fitted_for_check=not telling,
        answers=answers,
        metadata=metadata,
    )


def _rewrites(model: nn.Module, task: str, fuse: bool, precision: Precision) -> tuple[str, ...]:
    """Names of fuse.REWRITES that the network goes through: where asked, and always what int8 needs."""
    if precision == "int8" and (fuse or is_fusible(model, task)):
        return INT8_REWRITES
    return DEFAULT if fuse else ()


def _images(
    model: nn.Module, size: tuple[int, int, int], dynamic: Sequence[str], lowering: Lowering, seed: int
) -> tuple[Tensor | None, list[Tensor]]:
    """Images to calibrate on, and the batches to compare: of other sizes too where those are dynamic."""
    counts = (1, 3) if "batch" in dynamic else (1, 1, 1, 1)
    if lowering.calibration is not None:
        config: Any = getattr(model, "pretrained_cfg", {})
        mean, std = config.get("mean", (0.5,)), config.get("std", (0.5,))
        calibration, held_out = read_images(lowering.calibration, size, mean, std)
        return calibration, list(held_out.split(1 if "batch" not in dynamic else 3))
    channels, height, width = size
    sizes = [(height, width)]
    if {"height", "width"} & set(dynamic):
        for more_height, more_width in ((13, 27), (32, 64)):  # odd sizes, and whole strides
            tall = height + more_height if "height" in dynamic else height
            sizes.append((tall, width + more_width if "width" in dynamic else width))
    return None, [
        probe_images(n, (channels, *hw), seed + i)
        for i, (hw, n) in enumerate((hw, n) for hw in sizes for n in counts)
    ]


@dataclass(frozen=True)
class _Made:
    """A graph in its final precision, how it was wired in float32, what the file says of the precision."""

    graph: onnx.ModelProto
    wired: list[tuple[Any, ...]]
    metadata: dict[str, str]


def _lower(graph: onnx.ModelProto, lowering: Lowering, calibration: Tensor | None, name: str) -> _Made:
    wired = wiring(graph)
    if lowering.precision == "fp16":
        return _Made(to_fp16(graph, lowering.half_io), wired, {})
    if calibration is None:
        return _Made(graph, wired, {})
    quantised, in_float = to_int8(graph, calibration, lowering.target, name)
    metadata = {
        "quantised_for": lowering.target,
        "float_layers": json.dumps(in_float),
        "calibration_images": str(len(calibration)),
    }
    return _Made(quantised, wired, metadata)


def _identify(model: nn.Module, input_size: tuple[int, int, int] | None) -> tuple[str, tuple[int, int, int]]:
    """Name and input size; refuses what cannot be exported."""
    config = getattr(model, "pretrained_cfg", {})
    name = config.get("architecture") or type(model).__name__
    size = input_size or config.get("input_size")
    if size is None:
        raise DotsZooError(f"{name} has no input size of its own: give one")
    for place, module in model.named_modules():
        if isinstance(module, Noise):
            raise DotsZooError(
                f"{name} contains the operation noise (at {place}), which is random by definition: no parity "
                "is possible, so it is not exported"
            )
    if any(p.is_meta for p in model.parameters()):
        raise DotsZooError(f"{name} is on the meta device and has no weights to export")
    return name, tuple(size)


def _stand_in(
    subject: nn.Module,
    task: str,
    ends: Ends | None,
    batches: list[Tensor],
    size: tuple[int, int, int],
    seed: int,
    name: str,
) -> tuple[bool, nn.Module | None]:
    """Whether the own outputs can be judged, and the copy to judge where they or the answers cannot."""
    telling = not is_unfitted(subject)
    if telling:
        outputs = list(zip(*run_torch(wrap(subject, task).module.eval(), batches), strict=True))
        if not all(y.isfinite().all() for output in outputs for y in output):
            raise ParityError(f"{name}: its outputs are not finite numbers: the weights are broken")
        telling = all(moves(*spread(output)) for output in outputs)
        if telling and (ends is None or ends.tells(subject, batches)):
            return True, None
    twin = copy.deepcopy(subject) if telling else fitted_copy(subject, size, seed)
    if ends:
        alike = [batch for batch in batches if batch.shape[2:] == batches[0].shape[2:]]
        ends.enliven(twin, torch.cat(alike)[:4])
    return telling, twin


def _prove(
    made: _Made,
    subject: nn.Module,
    twin: _Made | None,
    stand_in: nn.Module | None,
    telling: bool,
    task: str,
    batches: list[Tensor],
    name: str,
    precision: Precision,
) -> Parity:
    """Parity of the graph itself where its outputs are telling, else of the stand-in's twin.

    A twin must be wired as the graph is. The reference is the model as it was given: not fused, in float32.
    """
    tolerance, judged = TOLERANCES[precision]
    own = wrap(subject, task).module.eval()
    if telling or twin is None or stand_in is None:
        parity = check_parity(made.graph.SerializeToString(), own, batches, name, tolerance, judged)
    else:
        fitted = wrap(stand_in, task).module.eval()
        with _amplified(telling, precision):
            parity = check_parity(twin.graph.SerializeToString(), fitted, batches, name, tolerance, judged)
    if twin is not None and twin.wired != made.wired:
        raise ParityError(f"{name}: with fitted statistics the exporter wires the graph otherwise")
    if not telling:
        check_values(made.graph.SerializeToString(), own, batches, name, tolerance, judged)
    return parity


@contextmanager
def _amplified(telling: bool, precision: Precision) -> Iterator[None]:
    """Where a low precision differs in a network that was never fitted, that need not be the graph."""
    try:
        yield
    except ParityError as error:
        if telling or precision == "fp32":
            raise
        raise ParityError(
            f"{error}, or these weights, which were never fitted and amplify the rounding of {precision}: it "
            "can be proven of trained ones"
        ) from error


def _describe(model: nn.Module) -> dict[str, str]:
    """Cell, normalisation and versions, as far as the model has them."""
    config: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    genotypes = [to_text(module.genotype) for module in model.modules() if isinstance(module, CellNet)]
    return {
        **({"genotype": genotypes[0]} if genotypes else {}),
        **{key: json.dumps(list(config[key])) for key in ("mean", "std") if config.get(key)},
        "dots_zoo": dots_zoo.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }


def _write(graph: onnx.ModelProto, metadata: dict[str, str], path: Path, name: str) -> Path:
    helper.set_model_props(graph, metadata)
    content = graph.SerializeToString()
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"{name}: the exported graph is not valid ONNX: {error}") from error
    return write_file(path, content)
