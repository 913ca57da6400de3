"""The command line: what it prints, its exit codes, and that nothing is left behind by a refusal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dots_zoo.commands.cli import main

TINY = ["--genotype", "darts_v1", "--num-classes", "10", "--exporter", "torchscript"]


def test_list_prints_costs_origin_and_the_paper_s_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "dots_*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("dots_imagenet "))
    for part in ("5.35 M params", "587.3 M MACs", "224x224", "guyuchao/DOTS", "paper: 76.0 ImageNet (DOTS)"):
        assert part in row
    flagged = [line.split()[0] for line in lines if ">600M" in line]
    assert flagged == ["dots_cifar100_mobile"]
    assert "papers' own" in lines[-1]


def test_list_json_and_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "darts_v2", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["macs"] == 528_359_040 and row["over_mobile_limit"] is False
    assert main(["list", "--cells"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 107


def test_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "darts_v2", "-o", str(tmp_path / "cell.svg")]) == 0
    assert str(tmp_path / "cell.svg") in capsys.readouterr().out
    assert (tmp_path / "cell.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "nothing*"], "no model matches 'nothing*'"),
        (["draw", "dots_imagnet", "-o", "cell.svg"], "dots_imagenet"),
        (["draw", "darts_v1", "-o", "cell.gif"], "cell.gif"),
        (["export", "no_such_model", "-o", "m.onnx"], "unknown model 'no_such_model'"),
        (["export", "dots_cifar10", "-o", "no/such/folder/m.onnx"], "folder"),
        (["export", "dots_cifar10", "-o", "m.onnx", "--input", "32"], "HEIGHTxWIDTH"),
        (["export", "dots_cifar10", "-o", "m.onnx", "--task", "dance"], "task: expected one of classify"),
        (
            ["export", "dots_cifar10", "-o", "m.onnx", "--dynamic", "depth"],
            "dynamic: expected one of batch, ",
        ),
        (["export", "dots_cifar10", "-o", "m.onnx", "--precision", "int8"], "int8 needs --images"),
        (["export", "test_resnet", "-o", "m.onnx", "--fuse"], "fuse rewrites the networks of dots_zoo"),
        (["inspect", "no.onnx"], "no.onnx: cannot be read"),
        (["export", "dots_cifar10", "-o", "m.onnx", "--pretrained"], "has no pretrained weights"),
        (["export", "cell_cifar", "-o", "m.onnx"], "pass genotype="),
        (["export", "cell_cifar", "-o", "m.onnx", "--genotype", "darts_minus_cifar100_s4_0"], "noise"),
        (["bench", "absent.onnx", "-o", "b.json"], "absent.onnx"),
        (["report", "absent.json", "-o", "r.html"], "absent.json"),
        (["demo", "--out", "taken"], "taken: expected a new or empty folder"),
    ],
)
def test_bad_input_is_one_sentence_exit_code_2_and_nothing_left(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("mine")
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("dots-zoo: error: ") and message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "thesis.txt"]


def test_export_bench_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, bench, page = (str(tmp_path / name) for name in ("m.onnx", "bench.json", "report.html"))
    assert main(["export", "cell_cifar", "-o", model, *TINY]) == 0
    assert "parity" in capsys.readouterr().out
    quick = ["--seconds", "0.2", "--rounds", "2", "--max-spread", "900%", "--no-memory"]
    assert main(["bench", model, "--device", "cpu", "--batch", "1", "-o", bench, *quick]) == 0
    [row] = json.loads(Path(bench).read_text())["rows"]
    assert (
        row["provider_used"] == "CPUExecutionProvider" and row["flops"] == 2 * row["macs"] == 2 * 500_987_520
    )
    assert row["resident"]["iterations"] >= 50 and row["end_to_end"]["seconds"] >= 0.2
    assert main(["report", bench, "-o", page]) == 0
    assert f"{row['resident']['p50_ms']:.3f}" in Path(page).read_text()
    assert main(["bench", model, "--device", "cuda", "-o", str(tmp_path / "gpu.json")]) == 2
    assert "CUDA" in capsys.readouterr().err and not (tmp_path / "gpu.json").exists()


@pytest.mark.parametrize(
    ("module", "argv", "extra"),
    [
        ("accelerate", ["search", "dots", "--data", "digits", "--out", "run"], "search"),
        ("accelerate", ["train", "darts_v1", "--data", "digits", "--out", "run"], "train"),
        ("onnx", ["demo", "--out", "run"], "search,export"),
    ],
)
def test_a_missing_extra_is_named(
    module: str,
    argv: list[str],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = ("dots_zoo.search", "dots_zoo.export", "dots_zoo.train.command")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    parts = [name for name in sys.modules if name.startswith(f"{module}.")]
    for name in [module, *parts]:
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert f"not installed: pip install 'dots-zoo[{extra}]'" in told and module in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_the_missing_extra_of_detection_is_named() -> None:
    """In a process of its own: what it brings registers itself once a process."""
    hide = "import sys; sys.modules['mmengine'] = None"
    code = f"{hide}; from dots_zoo.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["-c", code, "det", "check", "retinanet_dots_imagenet_fpn_1x_coco"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "dots-zoo: error: mmengine is not installed: pip install 'dots-zoo[mm]'\n"


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    out = capsys.readouterr().out
    assert "onnxruntime-gpu" in out and "extra mm" in out and code == ("PROBLEM" in out)


@pytest.mark.processes
def test_help_teaches_by_example_and_the_module_runs() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "dots_zoo", "--help"], capture_output=True, text=True, check=True
    )
    assert "dots-zoo export runs/net -o net.onnx" in shown.stdout


def test_search_help_is_the_search_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["search", "dots", "--help"])
    assert stop.value.code == 0 and "--topology-search.epochs" in capsys.readouterr().out
