"""What `-o` and its like name is checked before the work: a pipe stays a pipe, a link stays a link."""

import os
import stat
from pathlib import Path

import pytest

from dots_zoo.commands.cli import main
from dots_zoo.export.measure.schema import dump
from helpers.bench_document import document

# Every other argument is refused, too, once the work begins, but in the commands that take no time.
COMMANDS = [
    ["draw", "darts_v1", "-o", "out.svg"],
    ["export", "no_such_model", "-o", "out.onnx"],
    ["bench", "missing.onnx", "-o", "out.json"],
    ["report", "missing.json", "-o", "out.html"],
    ["report", "missing.json", "-o", "out.md"],
    ["tables", "--counts-only", "--only", "no_such_model", "--out", "tables.json"],
    ["tables", "--counts-only", "--only", "no_such_model", "--out", "report.html"],
    ["det", "curves", "missing", "-o", "out.png"],
    ["seg", "curves", "missing", "-o", "out.png"],
]


def given(argv: list[str], folder: Path) -> tuple[Path, list[str]]:
    """The output in a folder, and the words that name it: `tables` is given the folder."""
    words = str(folder) if argv[-2] == "--out" else str(folder / argv[-1])
    return folder / argv[-1], [*argv[:-1], words]


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: " ".join([*argv[:2], argv[-1]]))
def test_a_pipe_is_refused_before_the_work_and_stays(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = given(argv, tmp_path)
    os.mkfifo(out)
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"dots-zoo: error: {out}: cannot be written: give a file in an existing, writable folder; "
        "this is a named pipe\n"
    )
    assert stat.S_ISFIFO(out.lstat().st_mode) and list(tmp_path.iterdir()) == [out]


def test_the_python_functions_refuse_it_too(tmp_path: Path) -> None:
    from torch import nn

    from dots_zoo.export.convert.to_onnx import export_onnx
    from dots_zoo.genotype import load_genotype, save_genotype
    from dots_zoo.runtime.errors import DotsZooError
    from dots_zoo.train.half_weights import export_weights

    out = tmp_path / "pipe"
    os.mkfifo(out)
    for write in (
        lambda: export_onnx(nn.Identity(), out),
        lambda: save_genotype(load_genotype("darts_v1"), out),
        lambda: export_weights(tmp_path / "missing", out),
    ):
        with pytest.raises(DotsZooError, match="pipe: cannot be written: .*; this is a named pipe"):
            write()
    assert stat.S_ISFIFO(out.lstat().st_mode)


@pytest.mark.parametrize("argv", [["draw", "darts_v1", "-o", "out.svg"], ["report", "BENCH", "-o", "out.md"]])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(argv: list[str], there: bool, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_bytes(dump(document()))
    argv = [str(tmp_path / "bench.json") if word == "BENCH" else word for word in argv]
    link, plain = tmp_path / argv[-1], tmp_path / f"plain{Path(argv[-1]).suffix}"
    target = tmp_path / "kept" / "target"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    link.symlink_to(target)
    assert main([*argv[:-1], str(link)]) == main([*argv[:-1], str(plain)]) == 0
    assert link.is_symlink() and not target.is_symlink()
    assert target.read_bytes() == plain.read_bytes()
