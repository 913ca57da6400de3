"""A folder that is read-only and a disk that is full: a sentence, exit code 2, and nothing left behind."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from dots_zoo.commands.cli import main
from dots_zoo.export.convert import precision
from dots_zoo.export.measure import latency
from dots_zoo.export.measure.schema import dump
from dots_zoo.openmm.progress import quiet
from helpers.bench_document import document
from helpers.matrix import slow
from helpers.tiny_onnx import save

with quiet():
    from dots_zoo.openmm.config import build_model
    from helpers.tiny_mm import write_config

QUICK = ["--seconds", "0", "--iterations", "2", "--rounds", "2", "--max-spread", "9999%", "--no-memory"]
EXPORT = ["--exporter", "torchscript", "--input", "64x64"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to measure, a benchmark, and a detector and a segmenter with weights."""
    folder = tmp_path_factory.mktemp("inputs")
    save(folder / "m.onnx")
    (folder / "bench.json").write_bytes(dump(document()))
    for task in ("det", "seg"):
        torch.manual_seed(0)
        with quiet():
            model = build_model(write_config(folder / f"{task}.py", task, 1), task)
        torch.save({"state_dict": model.state_dict()}, folder / f"{task}.pth")
    return folder


@pytest.fixture(scope="module", params=["full", "read-only"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    options = "size=16k" if request.param == "full" else "ro"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk of its own can be mounted by root only")
    try:
        if request.param == "full":
            with pytest.raises(OSError), (folder / "fill").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.processes
@pytest.mark.parametrize(
    "argv",
    [
        ["bench", "m.onnx", "--batch", "1", *QUICK, "-o", "DISK/b.json"],
        ["report", "bench.json", "-o", "DISK/r.html"],
        ["report", "bench.json", "-o", "DISK/r.md"],
        ["tables", "--counts-only", "--only", "dots_cifar10_tiny", "--out", "DISK"],
        ["tables", "--counts-only", "--only", "dots_cifar10_tiny", "--out", "DISK/new/folder"],
        slow(
            ["export", "det.py", "--task", "detect", "--checkpoint", "det.pth", *EXPORT, "-o", "DISK/d.onnx"]
        ),
        ["export", "seg.py", "--task", "segment", "--checkpoint", "seg.pth", *EXPORT, "-o", "DISK/s.onnx"],
    ],
    ids=lambda argv: f"{argv[0]} {Path(argv[-1]).name}",
)
def test_nothing_is_left_behind(
    argv: list[str],
    disk: Path,
    inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(inputs)
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)
    before = sorted(disk.iterdir())
    assert main([word.replace("DISK", str(disk)) for word in argv]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith(f"dots-zoo: error: {disk}") and ("cannot be written" in error or "made" in error)
    assert ".tmp" not in error and sorted(disk.iterdir()) == before


@pytest.mark.processes
def test_compare_writes_nothing(disk: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(disk))
    bench = str(inputs / "bench.json")
    assert main(["compare", bench, bench]) == 0


def test_no_space_for_what_is_needed_in_between(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime's recording is cut short; the quantiser cannot keep its graph."""
    monkeypatch.chdir(inputs)
    monkeypatch.setattr(latency, "WARMUP_SECONDS", 0.0)
    read = Path.read_bytes

    def cut(path: Path) -> bytes:
        content = read(path)
        return content[:-9] if path.name.startswith("run") else content

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", cut)
        assert main(["bench", "m.onnx", *QUICK, "-o", str(tmp_path / "b.json")]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert "recording of a run, which says where nodes ran, is not whole there: make space" in error

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for i, pixels in enumerate(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)):
        to_pil_image(pixels).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(precision.onnx, "save", full)
    words = ["--precision", "int8", "--images", str(tmp_path), "--exporter", "torchscript"]
    assert main(["export", "test_byobnet", *words, "--input", "32x32", "-o", str(tmp_path / "i.onnx")]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert "while it is calibrated, and that fails (No space left on device): make space" in error
    assert {path.suffix for path in tmp_path.iterdir()} == {".png"}


@pytest.mark.parametrize(("task", "kind"), [("detect", "det"), ("segment", "seg")])
@pytest.mark.parametrize("size", ["31x64", "64x31", "1x1"])
def test_sizes_below_the_minimum(
    task: str,
    kind: str,
    size: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(inputs)
    words = ["--task", task, "--checkpoint", f"{kind}.pth", "--exporter", "torchscript", "--input", size]
    assert main(["export", f"{kind}.py", *words, "-o", str(tmp_path / "m.onnx")]) == 2
    assert capsys.readouterr().err == (
        f"dots-zoo: error: {kind}: task {task} expected an input of 32x32 pixels or more, below which the "
        f"backbone's last map is nothing but filling; got {size}\n"
    )
    assert not list(tmp_path.iterdir())
