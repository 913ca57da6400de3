"""`dots-zoo bench` and `dots-zoo report`: what they print, write and refuse, and their exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dots_zoo.commands.cli import main
from dots_zoo.export.measure import latency
from dots_zoo.export.measure.command import row_lines
from dots_zoo.export.measure.options import BenchOptions, fraction
from dots_zoo.export.measure.schema import dump, read_bench
from dots_zoo.export.ort_session import Gpu
from dots_zoo.options.command_line import CommandLine
from dots_zoo.options.declaration import Option
from dots_zoo.runtime.config import build
from dots_zoo.runtime.errors import DotsZooError
from helpers.bench_document import document, row
from helpers.tiny_onnx import save

QUICK = ["--seconds", "0", "--iterations", "2", "--rounds", "2", "--max-spread", "9999%", "--no-memory"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)
    save(tmp_path / "m.onnx", model="my_model")
    return tmp_path


def test_a_line_a_row_and_a_file(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "m.onnx", "--batch", "1", "2", "-o", "bench.json", *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = read_bench(here / "bench.json").rows
    assert [row.batch for row in rows] == [1, 2]
    shown = [line for line in lines if line.startswith("my_model ")]
    assert shown[1].startswith(
        "my_model fp32 batch 2, onnxruntime, CPUExecutionProvider, 1 thread: "
        f"p50 {rows[1].resident.p50_ms:.3f} ms, p95 "
    )
    assert lines[-1] == "written: bench.json; next: dots-zoo report bench.json -o report.html"
    assert main(["report", "bench.json", "-o", "report.html"]) == 0
    assert capsys.readouterr().out == "written: report.html\n"
    assert "my_model, 2" in (here / "report.html").read_text()


def test_a_failed_check_is_exit_code_1_and_still_on_record(here: Path, capsys: pytest.CaptureFixture[str]):
    save(here / "foreign.onnx", parity="")
    assert main(["bench", "foreign.onnx", "--batch", "1", "-o", "bench.json", *QUICK]) == 1
    assert "  refused: parity: the file records no comparison with torch" in capsys.readouterr().out
    assert main(["report", "bench.json", "-o", "report.md"]) == 0
    assert "1 of 1 rows are refused; the page says why" in capsys.readouterr().out
    allowed = ["--allow", "unproven"]
    assert main(["bench", "foreign.onnx", "--batch", "1", "-o", "bench.json", *QUICK, *allowed]) == 0
    [entry] = json.loads((here / "bench.json").read_text())["rows"]
    assert entry["allowed"] == ["unproven"] and entry["failures"] == {}


def test_warnings_of_a_noisy_row():
    [noisy] = read_bench(document(row([[30.0, 30.0, 38.0], [30.0, 30.0, 38.0]], cuda_graph=True))).rows
    first, *warnings = row_lines(noisy)
    assert first.startswith(
        "my_model fp32 batch 8, onnxruntime + CUDA graph, CPUExecutionProvider, 3 threads: "
    )
    # deviations from 32.667: four of 2.667, two of 5.333, so std = sqrt(85.33 / 5) = 4.131
    assert warnings == [
        f"  warning: {name}: the standard deviation is 12.6% of the mean"
        for name in ("device-resident", "end-to-end")
    ]


def test_every_option_reaches_the_plan():
    words = (
        "m.onnx -o b.json --device cuda:1 --engine onnxruntime tensorrt torch-compiled "
        "--batch 2 4 --threads 1 2 --seconds 3 --iterations 7 "
        "--rounds 9 --max-spread 12% --graph-optimisation basic --allow fallback unproven --no-memory "
        "--cudnn-search heuristic --no-tf32 --cuda-graph --engine-cache cache"
    )
    line = CommandLine("bench", "", "", [""])
    line.positional("files", "", nargs="+")
    line.add(Option("out", str, "", ""))
    line.add_from(BenchOptions)
    assert build(BenchOptions, line.parse(words.split())).plan((4, 6)) == latency.Plan(
        providers=("cuda", "tensorrt"),
        batches=(2, 4),
        threads=(1, 2),
        torch=("torch-compiled",),
        torch_on=("cuda",),
        optimisation="basic",
        input_size=(4, 6),
        min_iterations=7,
        min_seconds=3.0,
        rounds=9,
        max_spread=0.12,
        allow=("fallback", "unproven"),
        memory=False,
        gpu=Gpu(index=1, cudnn_search="heuristic", tf32=False, cuda_graph=True, engine_cache=Path("cache")),
    )
    assert BenchOptions().plan() == latency.Plan()
    of_torch = BenchOptions(device=("cpu", "cuda"), engine=("torch",)).plan()
    assert of_torch == latency.Plan(providers=(), torch=("torch",), torch_on=("cpu", "cuda"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": ("gpu",)}, "device: expected cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": ("cuda:0", "cuda:1")}, "expected one GPU, as rows take turns, got cuda:0 and cuda:1"),
        (
            {"engine": ("tensorrt",)},
            "engine tensorrt: expected it on a GPU, with device cuda",
        ),
        ({"engine": ()}, "expected an engine on a device, got none"),
        ({"batch": (0,)}, "expected batches, threads and rounds from 1 up"),
    ],
)
def test_what_cannot_be_planned(options: dict[str, Any], message: str):
    with pytest.raises(DotsZooError, match=message):
        BenchOptions(**options).plan()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bench", "none.onnx", "-o", "b.json"], "none.onnx: cannot be read: No such file or directory"),
        (["bench", "m.onnx", "-o", "none/b.json"], "give a file in an existing, writable folder"),
        (["bench", "m.onnx", "-o", "."], ".: cannot be written: give a file in an existing"),
        (["bench", "m.onnx", "-o", "b.json", "--batch", "0"], "batches, threads and rounds from 1 up"),
        (["bench", "m.onnx", "-o", "b.json", "--input", "6"], "input: expected HEIGHTxWIDTH"),
        (["bench", "m.onnx", "-o", "b.json", "--input", "7x4"], "was exported for 6x4 pixels"),
        (["bench", "m.onnx", "-o", "b.json", "--max-spread", "0.1"], "max_spread: expected a percentage"),
        (["report", "b.json", "-o", "r.html"], "b.json: cannot be read"),
        (["report", "m.onnx", "-o", "r.html"], "m.onnx: not JSON, or only a part of it"),
        (["report", "good.json", "-o", "none/r.html"], "cannot be written"),
        (["report", "good.json", "-o", "r.txt"], "expected a name that ends in .html or .md"),
        (["compare", "good.json", "b.json"], "b.json: cannot be read"),
    ],
)
def test_bad_input(argv: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "good.json").write_bytes(dump(document()))
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("dots-zoo: error: ") and message in error and len(error.splitlines()) == 1
    assert sorted(path.name for path in here.iterdir()) == ["good.json", "m.onnx"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_provider_that_is_not_there_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "m.onnx", "--device", "cpu", "cuda", "-o", "b.json"]) == 2
    assert "CUDAExecutionProvider does not start on this machine" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["m.onnx"]


def test_percentages():
    assert (fraction("5%", "x"), fraction("0.5%", "x"), fraction("100%", "x")) == (0.05, 0.005, 1.0)
    for text in ("5", "-5%", "5 %", "%", "5e1%", ""):
        with pytest.raises(DotsZooError, match="x: expected a percentage, such as 5%, got"):
            fraction(text, "x")


def test_the_search_for_a_missing_package_names_the_extra(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    import sys

    for name in [name for name in sys.modules if name.startswith("dots_zoo.export")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ["onnxruntime", *(name for name in sys.modules if name.startswith("onnxruntime."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["bench", "m.onnx", "-o", "b.json"]) == 2
    assert "onnxruntime is not installed: pip install 'dots-zoo[export]'" in capsys.readouterr().err
