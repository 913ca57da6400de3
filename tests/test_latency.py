"""Statistics by hand, runs counted on a false clock, and a GPU's every branch on a stub session."""

import gc
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from dots_zoo.errors import DotsZooError
from dots_zoo.export import latency
from dots_zoo.export.latency import bench, machine, summarise
from dots_zoo.export.schema import read_bench
from dots_zoo.export.session import open_session


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(tmp_path / "tiny.onnx")


def save(path: Path, batch: int | str = "batch", model: str | None = None) -> Path:
    """A convolution of 3 to 5 channels at 6x4 pixels: 5 * 24 * 3 = 360 MACs an image."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 6, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5, 6, 4])],
        [numpy_helper.from_array(np.ones((5, 3, 1, 1), np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if model is not None:
        helper.set_model_props(proto, {"model": model})
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)


def test_statistics_by_hand():
    # 4 runs: 10, 20, 30, 40 ms. Percentile p lies at index 3p: p50 between the 2nd and the 3rd, and so on.
    row = summarise([40.0, 10.0, 30.0, 20.0], batch=2)
    assert row["iterations"] == 4
    assert row["seconds"] == pytest.approx(0.1)
    assert row["p50_ms"] == pytest.approx(25.0)
    assert row["p90_ms"] == pytest.approx(37.0)  # index 2.7
    assert row["p95_ms"] == pytest.approx(38.5)  # index 2.85
    assert row["p99_ms"] == pytest.approx(39.7)  # index 2.97
    assert row["mean_ms"] == pytest.approx(25.0)
    assert row["std_ms"] == pytest.approx((500 / 3) ** 0.5)  # deviations 15, 5, 5, 15 and n - 1
    assert row["cv"] == pytest.approx((500 / 3) ** 0.5 / 25)
    assert row["unstable"] is True
    assert row["throughput_per_s"] == pytest.approx(80.0)  # 8 images in 0.1 s


def test_unstable_means_above_five_per_cent():
    # two runs of 1 +- d ms: the standard deviation is d * sqrt(2)
    assert summarise([1 - 0.034, 1 + 0.034], 1)["unstable"] is False  # cv 4.8 %
    assert summarise([1 - 0.036, 1 + 0.036], 1)["unstable"] is True  # cv 5.1 %


def test_a_row_has_enough_runs_and_enough_time(monkeypatch: pytest.MonkeyPatch):
    now = [0]

    def run() -> None:
        now[0] += 3_000_000  # 3 ms

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter_ns=lambda: now[0]))
    assert latency._repeat(run, 50, 0.01) == [3.0] * 50  # 4 runs would fill the time
    assert len(latency._repeat(run, 5, 0.1)) == 34  # 33 runs take 99 ms


def test_no_collection_while_the_clock_runs():
    assert gc.isenabled()
    with pytest.raises(KeyError), latency._no_gc():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_rows_of_two_files(path: Path, quick: None):
    named = save(path.with_name("other.onnx"), model="my_model")
    seen = []
    document = bench(
        [path, named], batches=[1, 3], min_iters=5, min_seconds=0.02, threads=1, progress=seen.append
    )
    assert [row["model"] for row in document["rows"]] == ["tiny", "tiny", "my_model", "my_model"]
    assert [row["file"] for row in document["rows"][1:3]] == ["tiny.onnx", "other.onnx"]
    for row, batch in zip(document["rows"], [1, 3, 1, 3], strict=True):
        assert (row["batch"], row["input_shape"]) == (batch, [batch, 3, 6, 4])
        assert (row["macs"], row["flops"]) == (360, 720)
        assert row["provider_asked"] == row["provider_used"] == "CPUExecutionProvider"
        assert row["iterations"] >= 5 and row["seconds"] >= 0.02
        assert row["warmup_iterations"] == latency.WARMUP_ITERS
        assert row["p50_ms"] <= row["p90_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert (row["threads"], row["samples_ms"]) == (1, None)
    assert document["rows"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read_bench(json.loads(json.dumps(document))).rows) == seen


def test_raw_samples_are_kept_when_asked_for(path: Path, quick: None):
    [row] = bench([path], batches=[2], min_iters=5, min_seconds=0.0, keep_samples=True)["rows"]
    assert len(row["samples_ms"]) == row["iterations"] == 5
    assert summarise(row["samples_ms"], 2)["p95_ms"] == row["p95_ms"]


def test_machine_has_no_host_name():
    import platform

    facts = machine()
    assert facts["cpu"] and facts["cores"] >= facts["usable_cores"] >= 1
    assert platform.node() not in facts["system"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_refused(path: Path, provider: str):
    name = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
    with pytest.raises(
        DotsZooError, match=f"tiny.onnx: {name} does not start on this machine; install"
    ) as error:
        bench([path], provider=provider)
    assert error.value.exit_code == 2


def test_a_provider_that_was_not_built_in(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DotsZooError, match="this build of ONNX Runtime has no CUDAExecutionProvider"):
        bench([path], provider="cuda")


class Gpu:
    """What onnxruntime offers where there is a GPU, with a log of the calls."""

    def __init__(self, used: str, spills: bool = False) -> None:
        self.used, self.spills, self.log = used, spills, []

    def session(self, content: bytes, options: Any, providers: list[str], enable_fallback: int) -> Any:
        strict = self.strict(options)
        self.log.append(("session", tuple(providers), enable_fallback, strict))
        if strict and self.spills:
            raise ort_errors.Fail("nodes that are assigned to the default CPU EP")
        return SimpleNamespace(
            get_providers=lambda: [self.used, "CPUExecutionProvider"],
            get_outputs=lambda: [SimpleNamespace(name="y")],
            io_binding=lambda: SimpleNamespace(
                bind_ortvalue_input=lambda name, value: self.log.append(("input", name, value)),
                bind_output=lambda name, device: self.log.append(("output", name, device)),
                synchronize_inputs=lambda: self.log.append(("synchronise inputs",)),
                synchronize_outputs=lambda: self.log.append(("synchronise outputs",)),
            ),
            run_with_iobinding=lambda binding: self.log.append(("run",)),
        )

    @staticmethod
    def strict(options: Any) -> bool:
        try:
            return options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        except RuntimeError:  # it was not set
            return False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Gpu":
        every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        value = SimpleNamespace(ortvalue_from_numpy=lambda array, device, index: (device, array.shape))
        monkeypatch.setattr(ort, "get_available_providers", lambda: every)
        monkeypatch.setattr(ort, "InferenceSession", self.session)
        monkeypatch.setattr(ort, "OrtValue", value)
        monkeypatch.setattr(ort, "preload_dlls", lambda: self.log.append(("preload",)), raising=False)
        return self


@pytest.mark.parametrize(
    ("provider", "name"), [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")]
)
def test_on_a_gpu_everything_stays_on_the_device(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, provider: str, name: str
):
    gpu = Gpu(name).install(monkeypatch)
    clock = latency.time.perf_counter_ns

    def reading() -> int:
        gpu.log.append(("clock",))
        return clock()

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter_ns=reading))
    [row] = bench([path], provider=provider, batches=[4], min_iters=3, min_seconds=0.0)["rows"]
    assert (row["provider_asked"], row["provider_used"]) == (name, name)
    timed = [("clock",), ("run",), ("synchronise outputs",), ("clock",)]
    assert gpu.log == [
        ("preload",),
        ("session", (name,), 0, False),
        ("session", (name,), 0, True),
        ("input", "image", ("cuda", (4, 3, 6, 4))),
        ("output", "y", "cuda"),
        ("synchronise inputs",),
        *timed * (latency.WARMUP_ITERS + 3),
    ]


def test_a_session_that_fell_back_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    Gpu("CPUExecutionProvider").install(monkeypatch)
    with pytest.raises(
        DotsZooError, match="CUDAExecutionProvider does not start.*the session got CPUExecution"
    ):
        bench([path], provider="cuda")


def test_a_single_node_that_falls_back_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    Gpu("CUDAExecutionProvider", spills=True).install(monkeypatch)
    with pytest.raises(
        DotsZooError, match="tiny.onnx: CUDAExecutionProvider cannot run every node: nodes that"
    ):
        bench([path], provider="cuda")


def test_threads_reach_the_session(path: Path):
    session = open_session(path.read_bytes(), "cpu", 2, "m")
    assert session.get_session_options().intra_op_num_threads == 2
    with pytest.raises(DotsZooError, match="unknown provider 'npu': expected one of cpu, cuda, tensorrt"):
        open_session(path.read_bytes(), "npu", 1, "m")


def test_a_file_of_one_batch_size(path: Path, quick: None):
    fixed = save(path, batch=2)
    with pytest.raises(DotsZooError, match=r"exported for a batch of 2 only, got --batch \[1, 8\]"):
        bench([fixed])
    [row] = bench([fixed], batches=[2], min_iters=2, min_seconds=0.0)["rows"]
    assert (row["batch"], row["macs"]) == (2, 360)


def test_a_batch_that_the_graph_cannot_run(path: Path, quick: None):
    proto = onnx.load(path)
    shape = numpy_helper.from_array(np.array([1, 120]), "shape")
    proto.graph.initializer.append(shape)
    proto.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["z"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 120]))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(DotsZooError, match="tiny.onnx: cannot run a batch of 3: "):
        bench([path], batches=[1, 3], min_iters=2, min_seconds=0.0)


def test_bad_files_are_found_before_anything_is_measured(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(latency, "open_session", None)
    missing = path.with_name("missing.onnx")
    with pytest.raises(DotsZooError, match="missing.onnx: cannot be read: No such file"):
        bench([path, missing])
    missing.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DotsZooError, match="not an ONNX file, or only a part of one"):
        bench([path, missing])


@pytest.mark.parametrize("options", [{"threads": 0}, {"batches": [1, 0]}, {"batches": []}, {"min_iters": 1}])
def test_numbers_that_make_no_sense(path: Path, options: dict[str, Any]):
    with pytest.raises(DotsZooError, match="expected threads and batches from 1 and iterations from 2 up"):
        bench([path], **options)
