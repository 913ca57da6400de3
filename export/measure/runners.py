"""One network in one setting, as two functions without arguments that are timed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
import timm
import torch
from torch import nn

from dots_zoo.runtime.errors import DotsZooError

from ..ort_session import Gpu, Optimisation, Provider, open_session, placement, provider_options
from .onnx_file import OnnxFile

Engine = Literal["onnxruntime", "torch", "torch-compiled"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device, threads, batch and engine of one network."""

    provider: Provider
    threads: int
    batch: int
    engine: Engine = "onnxruntime"
    optimisation: Optimisation = "all"
    gpu: Gpu = field(default_factory=Gpu)

    @property
    def device(self) -> str:
        """The device of its tensors, as torch names it."""
        return "cpu" if self.provider == "cpu" else "cuda"


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A network that has run once; its functions return when the device is done.

    resident: one run, input and output on the device. end_to_end: one run with copies from and to the host.
    prepare: to be called before a span of runs. nodes, options, build_seconds, engine_cached: as in rows.Row.
    """

    resident: Callable[[], None]
    end_to_end: Callable[[], None]
    provider: str
    prepare: Callable[[], None] = lambda: None
    nodes: dict[str, int] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    build_seconds: float
    engine_cached: bool | None = None


def onnx_runner(onnx_file: OnnxFile, setting: Setting) -> Runner:
    """Return the file in ONNX Runtime.

    Raises DotsZooError as ort_session.open_session does, and ONNX Runtime's errors where it does not run.
    """
    images, cached = onnx_file.images(setting.batch), _engine_cached(setting.gpu)
    open_input = onnx_file.open_input(setting.batch)
    where = str(onnx_file.path)

    def open_profiled(profile: Path | None) -> ort.InferenceSession:
        return open_session(
            *(onnx_file.content, setting.provider, setting.threads, where),
            gpu=setting.gpu,
            optimisation=setting.optimisation,
            open_input=open_input,
            profile=profile,
        )

    began = time.perf_counter()
    session, nodes = placement(open_profiled, lambda new: new.run(None, {onnx_file.input_name: images}))
    build_seconds = time.perf_counter() - began
    resident = _bound(session, onnx_file, images, setting)
    return Runner(
        resident=resident,
        end_to_end=lambda: session.run(None, {onnx_file.input_name: images}),
        provider=session.get_providers()[0],
        nodes=nodes,
        options=provider_options(setting.provider, setting.gpu, open_input)[0][1],
        build_seconds=build_seconds,
        engine_cached=cached if setting.provider == "tensorrt" else None,
    )


def graph_runner(onnx_file: OnnxFile, setting: Setting, nodes: dict[str, int]) -> Runner:
    """Return the file in ONNX Runtime with its launches captured as a CUDA graph (fixed addresses).

    nodes: by provider, of the same file in the same setting without the capture, which no recording may
    disturb.
    """
    images, cached = onnx_file.images(setting.batch), _engine_cached(setting.gpu)
    open_input = onnx_file.open_input(setting.batch)
    options = provider_options(setting.provider, setting.gpu, open_input)
    began = time.perf_counter()
    session = open_session(
        *(onnx_file.content, setting.provider, setting.threads, str(onnx_file.path)),
        gpu=setting.gpu,
        optimisation=setting.optimisation,
        open_input=open_input,
    )
    binding = session.io_binding()
    feed = ort.OrtValue.ortvalue_from_numpy(images, setting.device, setting.gpu.index)
    binding.bind_ortvalue_input(onnx_file.input_name, feed)
    for name, array in zip(onnx_file.outputs, _outputs(onnx_file, images), strict=True):
        value = ort.OrtValue.ortvalue_from_shape_and_type(
            array.shape, array.dtype, setting.device, setting.gpu.index
        )
        binding.bind_ortvalue_output(name, value)

    def resident() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def end_to_end() -> None:
        feed.update_inplace(images)
        session.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    resident()  # captures
    return Runner(
        resident=resident,
        end_to_end=end_to_end,
        provider=session.get_providers()[0],
        nodes=nodes,
        options=options[0][1],
        build_seconds=time.perf_counter() - began,
        engine_cached=cached if setting.provider == "tensorrt" else None,
    )


def torch_runner(onnx_file: OnnxFile, setting: Setting) -> Runner:
    """Return the network that the file was exported from, in PyTorch, with random weights.

    Raises DotsZooError where the file does not record which network of timm it holds.
    """
    device = torch.device("cpu" if setting.device == "cpu" else f"cuda:{setting.gpu.index}")
    began = time.perf_counter()
    model = rebuild(onnx_file).to(device)
    torch.set_num_threads(setting.threads)
    if setting.engine == "torch-compiled":
        model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    host = torch.from_numpy(onnx_file.images(setting.batch))
    images = host.to(device)
    synchronise = torch.cuda.synchronize if setting.device == "cuda" else _nothing

    def resident() -> None:
        with torch.inference_mode():
            model(images)
        synchronise()

    def end_to_end() -> None:
        with torch.inference_mode():
            outputs = model(host.to(device))
        for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
            output.cpu()

    resident()  # compiles
    return Runner(
        resident=resident,
        end_to_end=end_to_end,
        provider=setting.device,
        prepare=partial(torch.set_num_threads, setting.threads),
        build_seconds=time.perf_counter() - began,
    )


def rebuild(onnx_file: OnnxFile) -> nn.Module:
    """Build the timm model that a file names in its metadata, in evaluation mode, with as many parameters.

    Raises DotsZooError where timm builds another network, or none.
    """
    metadata = onnx_file.metadata
    where, name, task = onnx_file.path, metadata.get("model", ""), metadata.get("task")
    if not timm.is_model(name) or task not in ("classify", "features") or onnx_file.dtype != "float32":
        raise DotsZooError(
            f"{where}: no PyTorch row: expected a float32 file of dots-zoo export with a model of timm and "
            f"the task classify or features, got model {name!r}, task {task!r}, {onnx_file.dtype}"
        )
    arguments: dict[str, Any] = {"in_chans": onnx_file.size[0], "features_only": task == "features"}
    if name.startswith("cell_"):
        arguments["genotype"] = metadata["genotype"]
    if onnx_file.classes is not None:
        arguments["num_classes"] = onnx_file.classes
    model: nn.Module = timm.create_model(name, **arguments).eval()
    params = sum(p.numel() for p in model.parameters())
    if params != onnx_file.params:
        raise DotsZooError(
            f"{where}: no PyTorch row: {name} as timm builds it has {params:,} parameters and the file's has "
            f"{onnx_file.params:,}: it was built with other arguments"
        )
    return model


def _bound(
    session: ort.InferenceSession, onnx_file: OnnxFile, images: np.ndarray[Any, Any], setting: Setting
) -> Callable[[], None]:
    """Return one run with input and outputs on the device, which returns when the device is done."""
    binding = session.io_binding()
    feed = ort.OrtValue.ortvalue_from_numpy(images, setting.device, setting.gpu.index)
    binding.bind_ortvalue_input(onnx_file.input_name, feed)
    for output in session.get_outputs():
        binding.bind_output(output.name, setting.device, setting.gpu.index)
    binding.synchronize_inputs()

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _nothing() -> None:
    """Do nothing: on a CPU a call returns when the work is done."""


def _outputs(onnx_file: OnnxFile, images: np.ndarray[Any, Any]) -> Sequence[np.ndarray[Any, Any]]:
    """Return the outputs of one run on the CPU, for their shapes and types."""
    session = open_session(onnx_file.content, "cpu", 0, str(onnx_file.path))
    feeds = {onnx_file.input_name: images}
    outputs: Sequence[np.ndarray[Any, Any]] = session.run(list(onnx_file.outputs), feeds)
    return outputs


def _engine_cached(gpu: Gpu) -> bool:
    return gpu.engine_cache is not None and any(gpu.engine_cache.glob("*.engine"))
