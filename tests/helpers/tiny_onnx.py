"""A small ONNX file, and what onnxruntime offers where there is a GPU, with a log of the calls."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

PROVEN = json.dumps({"error": 1e-6, "tolerance": 1e-3})
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def save(
    path: Path,
    batch: int | str = "batch",
    size: tuple[int | str, int | str] = (6, 4),
    dtype: int = TensorProto.FLOAT,
    **metadata: str,
) -> Path:
    """A convolution of 3 to 5 channels, at 6x4 pixels 5 * 24 * 3 = 360 MACs an image; 15 weights."""
    of = helper.tensor_dtype_to_np_dtype(dtype)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("image", dtype, [batch, 3, *size])],
        [helper.make_tensor_value_info("y", dtype, [batch, 5, *size])],
        [numpy_helper.from_array(np.ones((5, 3, 1, 1), of), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(proto, {"parity": PROVEN, **metadata})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    return path


class Gpu:
    """A session that says where it runs: `used`, with `fallen` nodes on the CPU; 3 nodes in all."""

    def __init__(self, used: str, fallen: int = 0, starts: bool = True) -> None:
        self.used, self.fallen, self.starts, self.log = used, fallen, starts, []

    def session(
        self, content: bytes, options: Any, providers: list[tuple[str, dict[str, str]]], enable_fallback: int
    ) -> Any:
        if providers[0][0] == "CPUExecutionProvider":
            return self.real(content, options, providers=providers, enable_fallback=enable_fallback)
        self.log.append(("session", providers, enable_fallback, options.intra_op_num_threads))
        if not self.starts:
            raise ort_errors.EPFail("no CUDA-capable device is detected\nand a stack")
        binding = SimpleNamespace(
            bind_ortvalue_input=lambda name, value: self.log.append(("input", name, value.what)),
            bind_output=lambda name, device, index: self.log.append(("output", name, device)),
            bind_ortvalue_output=lambda name, value: self.log.append(("fixed output", name, value.what)),
            synchronize_inputs=lambda: self.log.append(("synchronise inputs",)),
            synchronize_outputs=lambda: self.log.append(("synchronise outputs",)),
            copy_outputs_to_cpu=lambda: self.log.append(("outputs to host",)),
        )
        return SimpleNamespace(
            get_providers=lambda: [self.used, "CPUExecutionProvider"],
            get_outputs=lambda: [SimpleNamespace(name="y")],
            io_binding=lambda: binding,
            run_with_iobinding=lambda bound: self.log.append(("run",)),
            run=lambda names, feeds: self.log.append(
                ("run with copies", *(images.shape for images in feeds.values()))
            ),
            end_profiling=lambda: self.record(options.profile_file_prefix),
        )

    def record(self, prefix: str) -> str:
        self.log.append(("recording ends",))
        where = ["CPUExecutionProvider"] * self.fallen + [self.used] * (3 - self.fallen)
        events = [
            {"cat": "Node", "name": f"n{i}_kernel_time", "args": {"provider": p}} for i, p in enumerate(where)
        ]
        Path(prefix).write_text(json.dumps(events))
        return prefix

    def value(self, array: Any, device: str, index: int) -> Any:
        def update(new: Any) -> None:
            self.log.append(("update", new.shape))

        return SimpleNamespace(what=(device, array.shape), update_inplace=update)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Gpu":
        self.real = ort.InferenceSession
        empty = SimpleNamespace(
            ortvalue_from_numpy=self.value,
            ortvalue_from_shape_and_type=lambda shape, dtype, device, index: SimpleNamespace(
                what=(device, tuple(shape), str(dtype))
            ),
        )
        monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, "CPUExecutionProvider"])
        monkeypatch.setattr(ort, "InferenceSession", self.session)
        monkeypatch.setattr(ort, "OrtValue", empty)
        monkeypatch.setattr(ort, "preload_dlls", lambda: self.log.append(("preload",)), raising=False)
        return self
