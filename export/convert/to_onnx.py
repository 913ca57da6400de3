"""Export a torch model to one self-contained ONNX file that is proven before it exists.

Fuse where asked, trace, lower the precision, prove the graph in ONNX Runtime (`prove`); put what the task has
around the network, and prove the whole; onnx.checker, metadata, and only then write the file.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime as ort
import torch
from onnx import helper
from torch import Tensor, nn

import dots_zoo
from dots_zoo.cell import Node
from dots_zoo.fuse.fuse import DEFAULT
from dots_zoo.genotype import OPS, to_text
from dots_zoo.macs import count
from dots_zoo.network import CellNet
from dots_zoo.reference import weights_sha256
from dots_zoo.runtime.atomic_write import check_output, write_file
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.zoo import TAG

from ..ort_session import open_session
from .graph import wiring
from .options import ExportOptions, Lowering
from .parity import Parity, ParityError, probe_images
from .pre_post import TaskAdapter
from .precision import to_fp16, to_int8
from .prove import Claim, LoweredGraph, choose_reference, comparison_images, prove_answers, prove_graph
from .tasks import adapter_of, fused, is_fusible, wrap
from .trace import trace

# What a network of dots_zoo goes through before it is quantised: its slices and padding would go back to
# float. Without chains: grouped pointwise convolutions have no integer kernel for channels-last maps.
INT8_REWRITES = tuple(name for name in DEFAULT if name != "chains")
LAST_STRIDE = 32  # of the backbones of detectors and segmenters
DEFAULTS = ExportOptions()

Size = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True)
class Exported:
    """The file that was written, and its parity.

    shape: of the input, (batch, C, H, W), None for what is dynamic. outputs: their names, in order.
    fitted_for_check: parity was measured on a copy with fitted statistics, as the weights were never fitted.
    answers: figures of the comparison of a task's answers, such as the share of matched boxes. metadata: as
    written into the file.
    """

    path: Path
    shape: tuple[int | None, int, int | None, int | None]
    outputs: tuple[str, ...]
    parity: Parity
    fitted_for_check: bool
    answers: dict[str, Any]
    metadata: dict[str, str]

    def session(self, device: Literal["cpu", "cuda"] = "cpu", threads: int = 0) -> ort.InferenceSession:
        """Open the file in ONNX Runtime; threads: within one operator, 0 for one a core."""
        return open_session(self.path.read_bytes(), device, threads, str(self.path))


def export_onnx(model: nn.Module, path: str | Path, options: ExportOptions = DEFAULTS) -> Exported:
    """Export `model` in evaluation mode, and leave the model itself as it is.

    Raises ParityError where the graph is not proven and DotsZooError where the model cannot be exported;
    there is no file then.
    """
    check_output(Path(path))
    adapter = adapter_of(options)
    name, size = _identify(model, options, adapter)
    network = _float_copy(model)
    wrapped = wrap(network, options.task)
    usage = adapter.metadata(network, size, options.dynamic) if adapter else {}
    rewrites = _rewrites(network, options)
    facts = _describe_export(model, name, size, options, rewrites)
    calibration, batches = comparison_images(model, size, options)

    def lower(source: nn.Module) -> LoweredGraph:
        """Fuse and trace the network, or its reference copy, and lower the precision."""
        module = fused(source, options.task, rewrites) if rewrites else source
        return _lower(_trace(module, size, wrapped.outputs, options), options.lowering, calibration, name)

    def attach(lowered: LoweredGraph) -> onnx.ModelProto:
        """Put what the task has around the network."""
        if adapter is None:
            return lowered.graph
        return adapter.attach(lowered.graph, network, size, dynamic=options.dynamic, opset=options.opset)

    claim = Claim(name, network, options.task, adapter, batches, options.precision)
    reference = choose_reference(claim, size, options.seed)
    lowered = lower(network)
    reference_lowered = lower(reference.network) if reference.is_copy else lowered
    parity = prove_graph(claim, reference, lowered, reference_lowered)
    graph = attach(lowered)
    reference_graph = attach(reference_lowered) if reference.is_copy else graph
    answers = prove_answers(claim, reference, reference_graph)
    metadata = {
        **facts,
        "parity": json.dumps({**parity.as_dict(), "fitted_for_check": reference.is_fitted, **answers}),
        **lowered.metadata,
        **wrapped.metadata,
        **usage,
        **_describe_model(model),
    }
    return Exported(
        path=_write(graph, metadata, Path(path), name),
        shape=options.open_sizes(size),
        outputs=adapter.outputs if adapter else wrapped.outputs,
        parity=parity,
        fitted_for_check=reference.is_fitted,
        answers=answers,
        metadata=metadata,
    )


def _identify(model: nn.Module, options: ExportOptions, adapter: TaskAdapter | None) -> tuple[str, Size]:
    """Return the name and the input size of a model. Raises DotsZooError for what cannot be exported."""
    config = getattr(model, "pretrained_cfg", {})
    name = (config.get("architecture") or type(model).__name__).removesuffix(f".{TAG}")
    size = options.input_size or config.get("input_size")
    if size is None:
        raise DotsZooError(f"{name} has no input size of its own: give one")
    for place, module in model.named_modules():
        for i, operation in enumerate(module.operations if isinstance(module, Node) else ()):
            if OPS[operation].random:
                raise DotsZooError(
                    f"{name} contains the operation {operation} (at {place}.ops.{i}), which is random by "
                    "definition: no parity is possible, so it is not exported"
                )
    if any(p.is_meta for p in model.parameters()):
        raise DotsZooError(f"{name} is on the meta device and has no weights to export")
    channels, height, width = size
    if adapter and min(height, width) < LAST_STRIDE:
        raise DotsZooError(
            f"{name}: task {options.task} expected an input of {LAST_STRIDE}x{LAST_STRIDE} pixels or more, "
            f"below which the backbone's last map is nothing but filling; got {height}x{width}"
        )
    return name, (channels, height, width)


def _float_copy(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, in float32 on the CPU, that no memory format is asked of."""
    network = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval()
    for module in network.modules():
        if hasattr(module, "channels_last"):  # a DotsBackbone's, for torch's CPU kernels
            module.channels_last = False  # type: ignore[assignment]
    return network


def _rewrites(network: nn.Module, options: ExportOptions) -> tuple[str, ...]:
    """Return the names of fuse.REWRITES for a network: the default where asked, and what int8 needs."""
    if options.precision == "int8" and (options.fuse or is_fusible(network, options.task)):
        return INT8_REWRITES
    return DEFAULT if options.fuse else ()


def _trace(
    network: nn.Module, size: Size, outputs: tuple[str, ...], options: ExportOptions
) -> onnx.ModelProto:
    """Trace what the task makes of a network, on a batch size that is not compared."""
    image = probe_images(2 if "batch" in options.dynamic else 1, size, options.seed)
    return trace(
        wrap(network, options.task).module.eval(),
        image,
        outputs,
        dynamic=options.dynamic,
        opset=options.opset,
        exporter=options.exporter,
    )


def _lower(graph: onnx.ModelProto, lowering: Lowering, calibration: Tensor | None, name: str) -> LoweredGraph:
    """Lower a float32 graph to its precision. calibration: (n, C, H, W) images for int8, else None."""
    float_wiring = wiring(graph)
    if lowering.precision == "fp16":
        return LoweredGraph(to_fp16(graph, lowering.half_io), float_wiring, {})
    if calibration is None:
        return LoweredGraph(graph, float_wiring, {})
    quantised, in_float = to_int8(graph, calibration, lowering.target, name)
    metadata = {
        "quantised_for": lowering.target,
        "float_layers": json.dumps(in_float),
        "calibration_images": str(len(calibration)),
    }
    return LoweredGraph(quantised, float_wiring, metadata)


def _describe_export(
    model: nn.Module, name: str, size: Size, options: ExportOptions, rewrites: tuple[str, ...]
) -> dict[str, str]:
    """Return what the file says of its network and of how it was made."""
    costs = count(model, size)
    return {
        "model": name,
        "task": options.task,
        "params": str(costs.params),
        "macs": str(costs.macs),
        "weights_sha256": weights_sha256(model),
        "precision": options.precision,
        "fused": json.dumps(bool(rewrites)),
        "rewrites": json.dumps(rewrites),
        "input_size": json.dumps(size),
        "opset": str(options.opset),
        "exporter": options.exporter,
    }


def _describe_model(model: nn.Module) -> dict[str, str]:
    """Return the cell, how images become its input, and the versions, as far as the model has them."""
    config: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    genotypes = [to_text(module.genotype) for module in model.modules() if isinstance(module, CellNet)]
    return {
        **({"genotype": genotypes[0]} if genotypes else {}),
        **{key: json.dumps(list(config[key])) for key in ("mean", "std") if config.get(key)},
        **{key: json.dumps(config[key]) for key in ("crop_pct", "interpolation") if config.get(key)},
        "dots_zoo": dots_zoo.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }


def _write(graph: onnx.ModelProto, metadata: dict[str, str], path: Path, name: str) -> Path:
    """Write a graph with its metadata. Raises ParityError, and writes nothing, for invalid ONNX."""
    helper.set_model_props(graph, metadata)
    content = graph.SerializeToString()
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ParityError(f"{name}: the exported graph is not valid ONNX: {error}") from error
    return write_file(path, content)
