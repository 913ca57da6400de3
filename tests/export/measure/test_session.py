"""Sessions that run where they were told to, their options, and where each node ran."""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from dots_zoo.export.ort_session import Gpu as Options
from dots_zoo.export.ort_session import (
    forbid_tf32,
    nodes_by_provider,
    open_session,
    placement,
    provider_options,
)
from dots_zoo.runtime.errors import DotsZooError
from helpers.tiny_onnx import CUDA, TENSORRT, Gpu, save


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return save(tmp_path / "tiny.onnx").read_bytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_refused(content: bytes, provider: str):
    name = {"cuda": CUDA, "tensorrt": TENSORRT}[provider]
    with pytest.raises(DotsZooError, match=f"m: {name} does not start on this machine; install") as error:
        open_session(content, provider, 1, "m")
    assert error.value.exit_code == 2


def test_a_provider_that_was_not_built_in(content: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DotsZooError, match="this build of ONNX Runtime has no CUDAExecutionProvider"):
        open_session(content, "cuda", 1, "m")


@pytest.mark.gpu_stub
def test_a_session_that_fell_back_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch):
    gpu = Gpu("CPUExecutionProvider").install(monkeypatch)
    with pytest.raises(
        DotsZooError, match="CUDAExecutionProvider does not start.*: the session got CPUExecution"
    ):
        open_session(content, "cuda", 1, "m")
    assert [call[0] for call in gpu.log] == ["preload", "session"]


@pytest.mark.gpu_stub
def test_a_session_that_fails_is_one_line(content: bytes, monkeypatch: pytest.MonkeyPatch):
    Gpu(CUDA, starts=False).install(monkeypatch)
    with pytest.raises(DotsZooError, match="see dots-zoo doctor.*: no CUDA-capable device is detected$"):
        open_session(content, "cuda", 1, "m")


def test_what_a_session_is_told():
    assert provider_options("cpu", Options()) == [("CPUExecutionProvider", {})]
    cuda = {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "1",
        "enable_cuda_graph": "0",
    }
    assert provider_options("cuda", Options()) == [(CUDA, cuda)]
    options = Options(index=1, cudnn_search="heuristic", tf32=False, cuda_graph=True)
    other = {
        "device_id": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
        "enable_cuda_graph": "1",
    }
    assert provider_options("cuda", options, ("image", (2, 3, 4, 5))) == [(CUDA, other)]


def test_what_tensorrt_is_told():
    [(first, options), (second, cuda)] = provider_options("tensorrt", Options(cuda_graph=True))
    assert (first, second) == (TENSORRT, CUDA)
    assert options == {"device_id": "0", "trt_cuda_graph_enable": "True"} and cuda["enable_cuda_graph"] == "0"
    [(_, options), _] = provider_options(
        "tensorrt", Options(engine_cache=Path("engines")), ("image", (8, 3, 4, 5))
    )
    assert options == {
        "device_id": "0",
        "trt_cuda_graph_enable": "False",
        "trt_profile_min_shapes": "image:8x3x4x5",
        "trt_profile_opt_shapes": "image:8x3x4x5",
        "trt_profile_max_shapes": "image:8x3x4x5",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "engines",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": "engines",
    }


def test_threads_and_optimisation_reach_the_session(content: bytes):
    session = open_session(content, "cpu", 2, "m", optimisation="disabled")
    options = session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    with pytest.raises(DotsZooError, match="unknown provider 'npu': expected one of cpu, cuda, tensorrt"):
        open_session(content, "npu", 1, "m")


def test_where_every_node_ran(content: bytes):
    feeds = {"image": np.zeros((1, 3, 6, 4), np.float32)}
    session, nodes = placement(
        lambda profile: open_session(content, "cpu", 1, "m", optimisation="disabled", profile=profile),
        lambda new: new.run(None, feeds),
    )
    assert nodes == {"CPUExecutionProvider": 1}
    assert session.run(None, feeds)[0].shape == (1, 5, 6, 4)


def test_a_node_counts_once_and_only_its_kernel():
    def event(name: str, provider: str, index: str = "0", cat: str = "Node") -> dict[str, object]:
        return {"cat": cat, "name": name, "args": {"provider": provider, "node_index": index}}

    events = [
        event("a_kernel_time", CUDA),
        event("a_kernel_time", CUDA),
        event("a_fence_before", CUDA),
        event("_kernel_time", CUDA, "1"),
        event("_kernel_time", "CPUExecutionProvider", "2"),
        event("model_run_kernel_time", CUDA, cat="Session"),
    ]
    assert nodes_by_provider(events) == {"CPUExecutionProvider": 1, CUDA: 2}


def test_tf32_is_forbidden_to_cudnn_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    forbid_tf32()
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
