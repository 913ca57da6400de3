"""Rows of a real run on the CPU, the order of turns, and a GPU's every branch on a stub session."""

import json
import os
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper

from dots_zoo.export.convert.options import ExportOptions
from dots_zoo.export.convert.to_onnx import export_onnx
from dots_zoo.export.measure import latency, runners
from dots_zoo.export.measure.latency import Plan, measure
from dots_zoo.export.measure.onnx_file import read_onnx_file
from dots_zoo.export.measure.schema import dump, read_bench
from dots_zoo.export.ort_session import Gpu as Options
from dots_zoo.runtime.errors import DotsZooError
from helpers.fitting import fitted
from helpers.tiny_onnx import CUDA, TENSORRT, Gpu, save

QUICK = Plan(batches=(1,), min_iterations=2, min_seconds=0.0, rounds=2, max_spread=1e6, memory=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save(tmp_path / "tiny.onnx")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)
    monkeypatch.setattr(latency, "WARMUP_ITERS", 2)


@pytest.mark.processes
def test_files_batches_and_threads_in_one_run(path: Path, quick: None):
    named = save(path.with_name("other.onnx"), model="my_model", params="77")
    progress_lines: list[str] = []
    plan = replace(QUICK, batches=(1, 3), threads=(1, 2), min_iterations=5, min_seconds=0.02, memory=True)
    document = measure([path, named], plan, progress=progress_lines.append)
    rows = read_bench(json.loads(dump(document))).rows
    settings = [(row.model, row.threads, row.batch) for row in rows]
    assert settings == [(m, t, b) for m in ("tiny", "my_model") for t in (1, 2) for b in (1, 3)]
    for row in rows:
        assert row.input_shape == [row.batch, 3, 6, 4]
        assert (row.macs, row.flops, row.precision, row.engine) == (360, 720, "fp32", "onnxruntime")
        assert row.provider_asked == row.provider_used == "CPUExecutionProvider"
        assert list(row.nodes_by_provider) == ["CPUExecutionProvider"]
        assert row.params == {"tiny": 15, "my_model": 77}[row.model]
        for timing in (row.resident, row.end_to_end):
            assert timing.iterations >= 5 and timing.seconds >= 0.019 and len(timing.samples_ms) == 2
            assert timing.p50_ms <= timing.p90_ms <= timing.p95_ms <= timing.p99_ms
        assert row.warmup_iterations == 2 * latency.WARMUP_ITERS + 2 * 2  # and one a turn, of either kind
        assert row.build_seconds > 0 and row.engine_cached is None and row.failures == {}
        assert row.peak_memory_bytes > 0 and row.gpu_memory_bytes is None
    assert rows[0].sha256 == read_onnx_file(path, [1]).sha256 != rows[4].sha256
    assert document["settings"]["min_seconds"] == 0.02 and document["machine"]["cpu"]
    assert sum(line.startswith("ready: ") for line in progress_lines) == 8
    assert progress_lines[-1] == "round 2 of 2: 8 rows"


@pytest.mark.gpu_stub
def test_rows_take_turns_forwards_and_backwards(path: Path, quick: None, monkeypatch: pytest.MonkeyPatch):
    gpu = Gpu(CUDA).install(monkeypatch)
    measure([path], replace(QUICK, providers=("cuda",), batches=(1, 2, 3), rounds=3))
    batches = [call[1][0] for call in gpu.log if call[0] == "run with copies"]
    recorded, warm_up, rounds = [1, 2, 3], [1, 2, 3], [1, 2, 3, 2, 1, 2, 3]  # 3 3 and 1 1 are one turn here
    assert [batch for batch, _ in groupby(batches)] == recorded + warm_up + rounds


def test_a_graph_that_leaves_its_size_open(tmp_path: Path, quick: None):
    path = save(tmp_path / "m.onnx", size=("height", "width"))
    [row] = measure([path], replace(QUICK, input_size=(12, 4)))["rows"]
    assert (row["input_shape"], row["macs"]) == ([1, 3, 12, 4], 720)
    with pytest.raises(
        DotsZooError, match="m.onnx: leaves height and width open: give them with --input HxW"
    ):
        measure([path], QUICK)
    fixed = save(tmp_path / "fixed.onnx")
    with pytest.raises(DotsZooError, match="was exported for 6x4 pixels, got --input 12x4"):
        measure([fixed], replace(QUICK, input_size=(12, 4)))


def test_precision_is_read_off_the_graph(tmp_path: Path, quick: None):
    half = read_onnx_file(save(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16), [1])
    assert (half.precision, half.images(2).dtype, half.macs) == ("fp16", np.float16, 360)
    quantised = onnx.load(save(tmp_path / "int8.onnx"))
    node, graph = quantised.graph.node[0], quantised.graph
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    node.input[0] = "back"
    del graph.node[:]
    graph.node.append(helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]))
    graph.node.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"]))
    graph.node.append(node)
    (tmp_path / "int8.onnx").write_bytes(quantised.SerializeToString())
    [row] = measure([tmp_path / "int8.onnx"], QUICK)["rows"]
    assert row["precision"] == "int8"


def test_a_file_without_parity_fails_its_row_unless_allowed(tmp_path: Path, quick: None):
    path = save(tmp_path / "m.onnx", parity="")
    [row] = measure([path], QUICK)["rows"]
    assert list(row["failures"]) == ["parity"] and row["parity_error"] is None
    [row] = measure([path], replace(QUICK, allow=("unproven",)))["rows"]
    assert row["failures"] == {} and row["allowed"] == ["unproven"]


@pytest.mark.gpu_stub
@pytest.mark.parametrize(("provider", "name"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_on_a_gpu_one_number_stays_on_the_device_and_one_does_not(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, provider: str, name: str
):
    gpu = Gpu(name).install(monkeypatch)
    states = iter([{"pstate": "P8"}, {"pstate": "P0"}])
    monkeypatch.setattr(latency, "gpu_state", lambda: next(states))
    monkeypatch.setattr(
        latency, "peak_memory", lambda task: {"host": 5, "gpu": task["providers"][0][0] == name}
    )
    document = measure(
        [path], replace(QUICK, providers=(provider,), batches=(4,), rounds=1, memory=provider == "cuda")
    )
    [row] = document["rows"]
    assert (row["provider_asked"], row["provider_used"], row["failures"]) == (name, name, {})
    assert row["nodes_by_provider"] == {name: 3}
    assert row["gpu_memory_bytes"] == (1 if provider == "cuda" else None)
    assert row["engine_cached"] is (None if provider == "cuda" else False)
    assert document["machine"]["gpu_before"] == {"pstate": "P8"}
    assert document["machine"]["gpu_after"] == {"pstate": "P0"}
    on_device, with_copies = [("run",), ("synchronise outputs",)], [("run with copies", (4, 3, 6, 4))]
    session = gpu.log[1]
    assert session[0] == "session" and session[2:] == (0, 1) and session[1][0][0] == name
    assert gpu.log[:1] + gpu.log[2:] == [
        ("preload",),
        *with_copies,  # the first run is recorded
        ("recording ends",),
        ("input", "image", ("cuda", (4, 3, 6, 4))),
        ("output", "y", "cuda"),
        ("synchronise inputs",),
        *on_device * 2,  # warm-up
        *with_copies * 2,
        *on_device * (1 + 2),  # one that is not timed, two that are
        *with_copies * (1 + 2),
    ]


@pytest.mark.gpu_stub
def test_the_clock_stops_after_the_device(path: Path, quick: None, monkeypatch: pytest.MonkeyPatch):
    from dots_zoo.export.measure import timing

    gpu = Gpu(CUDA).install(monkeypatch)
    clock = timing.time.perf_counter_ns
    monkeypatch.setattr(
        timing.time, "perf_counter_ns", lambda: (gpu.log.append(("clock",)), clock())[1], raising=True
    )
    measure([path], replace(QUICK, providers=("cuda",), rounds=1))
    calls = [call[0] for call in gpu.log]
    runs = [i for i, call in enumerate(calls) if call == "run"]
    assert len(runs) == latency.WARMUP_ITERS + 1 + 2
    assert all(calls[i + 1 : i + 3] == ["synchronise outputs", "clock"] for i in runs)


@pytest.mark.gpu_stub
def test_a_node_that_falls_back_fails_the_row_unless_allowed(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
):
    Gpu(CUDA, fallen=1).install(monkeypatch)
    plan = replace(QUICK, providers=("cuda",))
    [row] = measure([path], plan)["rows"]
    assert row["nodes_by_provider"] == {"CPUExecutionProvider": 1, CUDA: 2}
    assert row["failures"]["provider"].startswith("1 of 3 nodes fell back to CPUExecutionProvider")
    [row] = measure([path], replace(plan, allow=("fallback",)))["rows"]
    assert row["failures"] == {} and row["nodes_by_provider"] == {"CPUExecutionProvider": 1, CUDA: 2}


@pytest.mark.gpu_stub
def test_a_cuda_graph_is_a_further_row_with_fixed_addresses(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
):
    plan = replace(QUICK, batches=(2,), rounds=1, gpu=Options(cuda_graph=True))
    [on_cpu] = measure([path], plan)["rows"]
    assert not on_cpu["cuda_graph"] and "enable_cuda_graph" not in on_cpu["options"]
    gpu = Gpu(CUDA).install(monkeypatch)
    rows = measure([path], replace(plan, providers=("cuda",)))["rows"]
    assert [(row["provider_asked"], row["cuda_graph"]) for row in rows] == [(CUDA, False), (CUDA, True)]
    assert [row["options"]["enable_cuda_graph"] for row in rows] == ["0", "1"]
    assert rows[1]["nodes_by_provider"] == rows[0]["nodes_by_provider"] == {CUDA: 3}
    graph = gpu.log[gpu.log.index(("fixed output", "y", ("cuda", (2, 5, 6, 4), "float32"))) - 1 :]
    assert graph[0] == ("input", "image", ("cuda", (2, 3, 6, 4)))
    assert graph[2:4] == [("run",), ("synchronise outputs",)]  # the capture
    end_to_end = [("update", (2, 3, 6, 4)), ("run",), ("outputs to host",)]
    assert graph[-3:] == end_to_end and graph.count(end_to_end[0]) == latency.WARMUP_ITERS + 1 + 2


@pytest.mark.gpu_stub
def test_tensorrt_keeps_engines_apart_and_says_whether_it_found_one(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
):
    gpu = Gpu(TENSORRT).install(monkeypatch)
    cache = path.parent / "engines"
    plan = replace(QUICK, providers=("tensorrt",), batches=(1, 2), gpu=Options(engine_cache=cache))
    monkeypatch.setattr(latency, "peak_memory", lambda task: {"host": 5, "gpu": 6})
    document = measure([path], replace(plan, memory=True))
    assert [row["engine_cached"] for row in document["rows"]] == [False, False]
    assert [row["gpu_memory_bytes"] for row in document["rows"]] == [6, 6]
    assert str(cache) not in json.dumps(document["settings"])
    sha = document["rows"][0]["sha256"][:16]
    assert sorted(folder.name for folder in cache.iterdir()) == [f"{sha}-{n}x3x6x4" for n in (1, 2)]
    session_options = [call[1][0][1] for call in gpu.log if call[0] == "session"]
    assert [options["trt_profile_opt_shapes"] for options in session_options] == [
        "image:1x3x6x4",
        "image:2x3x6x4",
    ]
    (cache / f"{sha}-2x3x6x4" / "x.engine").write_bytes(b"")
    assert [row["engine_cached"] for row in measure([path], plan)["rows"]] == [False, True]


@pytest.mark.gpu_stub
def test_an_engine_cache_that_cannot_be_made(path: Path, monkeypatch: pytest.MonkeyPatch):
    Gpu(TENSORRT).install(monkeypatch)
    plan = replace(QUICK, providers=("tensorrt",), gpu=Options(engine_cache=path))
    with pytest.raises(DotsZooError, match="the engine cache cannot be made: Not a directory"):
        measure([path], plan)


@pytest.mark.gpu_stub
def test_tf32_off_reaches_session_and_libraries(path: Path, quick: None, monkeypatch: pytest.MonkeyPatch):
    Gpu(CUDA).install(monkeypatch)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "unset")
    measure([path], replace(QUICK, providers=("cuda",)))
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "unset"
    plan = replace(QUICK, providers=("cuda",), gpu=Options(tf32=False, cudnn_search="default"))
    [row] = measure([path], plan)["rows"]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert (row["options"]["use_tf32"], row["options"]["cudnn_conv_algo_search"]) == ("0", "DEFAULT")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = fitted(timm.create_model("test_byobnet", num_classes=7), (3, 32, 32))
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export_onnx(model, path, ExportOptions(input_size=(3, 32, 32), exporter="torchscript"))
    return path


def test_pytorch_rows_are_of_the_same_network(exported: Path, quick: None, monkeypatch: pytest.MonkeyPatch):
    compiled = []

    def compile(model: Any, **options: Any) -> Any:
        compiled.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile)
    rows = measure([exported], replace(QUICK, torch=("torch", "torch-compiled"), torch_on=("cpu",)))["rows"]
    assert [row["engine"] for row in rows] == ["onnxruntime", "torch", "torch-compiled"]
    assert len({(row["model"], row["params"], row["macs"]) for row in rows}) == 1
    assert (
        [row["provider_asked"] for row in rows[1:]]
        == [row["provider_used"] for row in rows[1:]]
        == ["cpu"] * 2
    )
    assert all(row["failures"] == {} and row["nodes_by_provider"] == {} for row in rows[1:])
    assert compiled == [{"dynamic": False}]
    model = runners.rebuild(read_onnx_file(exported, [1]))
    assert not model.training and model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.gpu_stub
def test_pytorch_on_a_gpu_is_synchronised(exported: Path, monkeypatch: pytest.MonkeyPatch):
    log: list[str] = []
    monkeypatch.setattr(torch, "device", str)
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, device: (log.append(f"model to {device}"), self)[1]
    )
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: (log.append(f"to {device}"), self)[1])
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: log.append("to host"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronise"))
    setting = runners.Setting(provider="cuda", threads=1, batch=2, engine="torch")
    runner = runners.torch_runner(read_onnx_file(exported, [2]), setting)
    assert log == ["model to cuda:0", "to cuda:0", "synchronise"]
    log.clear()
    runner.resident()
    assert log == ["synchronise"]
    log.clear()
    runner.end_to_end()
    assert log == ["to cuda:0", "to host"]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "no PyTorch row: expected a float32 file of dots-zoo export .* got model '', task None"),
        ({"model": "test_byobnet", "task": "detect"}, "task 'detect'"),
        (
            {"model": "test_byobnet", "task": "classify", "params": "12"},
            "test_byobnet as timm builds it has [0-9,]+ parameters and the file's has 12: it was built with",
        ),
    ],
)
def test_networks_that_pytorch_rows_cannot_be_made_of(
    tmp_path: Path, quick: None, metadata: dict[str, str], message: str
):
    path = save(tmp_path / "m.onnx", **metadata)
    with pytest.raises(DotsZooError, match=message):
        measure([path], replace(QUICK, torch=("torch",), torch_on=("cpu",)))


def test_a_file_of_one_batch_size(path: Path, quick: None):
    fixed = save(path, batch=2)
    with pytest.raises(DotsZooError, match=r"exported for a batch of 2 only, got --batch \[1, 8\]"):
        measure([fixed])
    [row] = measure([fixed], replace(QUICK, batches=(2,)))["rows"]
    assert (row["batch"], row["macs"]) == (2, 360)


def test_a_batch_that_the_graph_cannot_run(path: Path, quick: None):
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 120]), "shape"))
    proto.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["z"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 120]))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(DotsZooError, match="tiny.onnx: cannot run a batch of 3: "):
        measure([path], replace(QUICK, batches=(1, 3)))


def test_bad_files_are_found_before_anything_is_measured(path: Path):
    """The plan would take a day."""
    day = Plan(min_seconds=86_400.0)
    missing = path.with_name("missing.onnx")
    with pytest.raises(DotsZooError, match="missing.onnx: cannot be read: No such file"):
        measure([path, missing], day)
    missing.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DotsZooError, match="not an ONNX file, or only a part of one"):
        measure([path, missing], day)
    save(missing, dtype=TensorProto.DOUBLE)
    with pytest.raises(DotsZooError, match="input image is DOUBLE; expected FLOAT, FLOAT16 or UINT8 images"):
        measure([path, missing], day)
    with pytest.raises(DotsZooError, match="bench: expected an ONNX file or more"):
        measure([], day)


@pytest.mark.parametrize("size", [(200_000, 200_000), (-1, 4)])
def test_hostile_sizes(tmp_path: Path, size: tuple[int, int]):
    path = save(tmp_path / "m.onnx")
    proto = onnx.load(path)
    for dim, extent in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], size, strict=True):
        dim.dim_value = extent
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(
        DotsZooError, match="m.onnx: a batch of 1 images of 3x.* is not one that can be measured"
    ):
        measure([path], QUICK)


def test_weights_in_another_file(tmp_path: Path):
    path = save(tmp_path / "m.onnx")
    proto = onnx.load(path)
    [weight] = proto.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(DotsZooError, match="the weight w is in another file; export one self-contained file"):
        measure([path], QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": (0,)}, r"batches, threads and rounds from 1 up, got .* threads \[0\]"),
        ({"batches": (1, 0)}, r"from 1 up, got batches \[1, 0\]"),
        ({"batches": ()}, "expected batches, threads and rounds from 1 up"),
        ({"providers": ()}, "expected an engine on a device, got none"),
        ({"rounds": 0}, "0 rounds"),
        ({"min_iterations": 1}, "iterations from 2"),
        ({"min_seconds": -1.0}, "seconds from 0"),
        ({"min_seconds": float("nan")}, "seconds from 0"),
        ({"max_spread": 0.0}, "a spread above 0"),
        ({"providers": ("npu",)}, "unknown provider 'npu': expected one of cpu, cuda, tensorrt"),
        ({"optimisation": "most"}, "unknown graph optimisation 'most'"),
        ({"allow": ("noise",)}, "unknown waiver 'noise': expected one of fallback, unproven"),
    ],
)
def test_plans_that_make_no_sense(options: dict[str, Any], message: str):
    with pytest.raises(DotsZooError, match=message):
        Plan(**options)


def test_images_of_bytes(tmp_path: Path, quick: None):
    path = save(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    proto.graph.node[0].input[0] = "pixels"
    proto.graph.node.insert(0, helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT))
    path.write_bytes(proto.SerializeToString())
    [row] = measure([path], QUICK)["rows"]
    assert row["macs"] == 360
    images = read_onnx_file(path, [1]).images(50)
    assert images.dtype == np.uint8 and (images.min(), images.max()) == (0, 255)
