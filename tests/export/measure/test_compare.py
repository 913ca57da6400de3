"""Slower by more than is allowed, by hand; and what gives no verdict does not pass."""

from pathlib import Path
from typing import Any

import pytest

from dots_zoo.commands.cli import main
from dots_zoo.export.measure.compare import changes
from dots_zoo.export.measure.schema import dump
from dots_zoo.runtime.errors import DotsZooError
from helpers.bench_document import document, row

TEN = [[10.0, 10.0], [10.0, 10.0]]


def slower(factor: float) -> list[list[float]]:
    return [[10.0 * factor] * 2] * 2


def verdicts(old: dict[str, Any], new: dict[str, Any], over: float = 0.05) -> list[bool]:
    return [change.fails(over) for change in changes(document(old), document(new))]


def test_either_number_may_fail():
    assert verdicts(row(TEN), row(slower(1.04))) == [False, False]
    assert verdicts(row(TEN), row(slower(1.06))) == [True, True]
    assert verdicts(row(TEN), row(slower(0.5))) == [False, False]
    assert verdicts(row(TEN), row(TEN, host_times=slower(1.06))) == [False, True]
    assert verdicts(row(TEN), row(slower(1.06)), over=0.07) == [False, False]


def test_lines_for_people():
    fine, bad = changes(document(row(TEN)), document(row(TEN, host_times=slower(1.06))))
    setting = "my_model, fp32, onnxruntime, CPUExecutionProvider, 3 threads, 8x3x224x320"
    assert fine.line(0.05) == f"ok    {setting}, device-resident: p50 10.000 -> 10.000 ms (+0.0%)"
    assert bad.line(0.05) == f"FAIL  {setting}, end-to-end: p50 10.000 -> 10.600 ms (+6.0%)"


def test_what_is_missing_or_refused_gives_no_verdict():
    other, wild = row(TEN, model="other"), row([[10.0, 10.0], [14.0, 14.0]])
    [*judged, missing] = changes(document(row(TEN), other), document(row(TEN)))
    assert [change.fails(9.0) for change in judged] == [False, False]
    assert missing.fails(9.0) and "no verdict: the new benchmark lacks it" in missing.line(9.0)
    for old, new, which in ((row(TEN), wild, "new"), (wild, row(TEN), "old")):
        [change] = changes(document(old), document(new))
        assert change.fails(9.0) and f"the {which} row is refused: stability: " in change.line(9.0)
    assert len(changes(document(row(TEN)), document(row(TEN), other))) == 2  # a row more is no reason


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "int8"},
        {"engine": "torch", "provider_asked": "cpu"},
        {"threads": 2},
        {"input_shape": [8, 3, 224, 224]},
        {"cuda_graph": True},
    ],
)
def test_settings_are_not_mixed_up(change: dict[str, Any]):
    with pytest.raises(
        DotsZooError, match="no row of the old benchmark is in the new one: expected the same"
    ):
        changes(document(row(TEN)), document(row(TEN, **change)))


def test_other_weights_and_files_are_compared():
    assert verdicts(row(TEN), row(TEN, sha256="f" * 64, file="new.onnx")) == [False, False]


def test_machines_have_to_be_the_same_unless_told():
    old, new = document(row(TEN)), document(row(TEN), cpu="Another CPU")
    message = "the machines differ: cpu was 'Some CPU @ 3 GHz' and is 'Another CPU'; .* or give --any-machine"
    with pytest.raises(DotsZooError, match=message):
        changes(old, new)
    assert len(changes(old, new, any_machine=True)) == 2


def test_two_rows_of_one_setting_are_told_apart_by_their_files():
    plain, fused = row(TEN), row(slower(0.5), file="fused.onnx")
    found = changes(document(plain, fused), document(fused, plain))
    assert [change.ratio for change in found] == [1.0] * 4
    *judged, missing = changes(document(plain, fused), document(plain))
    assert [change.ratio for change in judged] == [1.0, 1.0]
    assert missing.name.startswith("fused.onnx: ") and missing.why_not == "the new benchmark lacks it"
    assert changes(document(plain), document(plain, fused))[0].name.startswith("m.onnx: my_model, fp32, ")
    with pytest.raises(DotsZooError, match="the new benchmark has two rows of m.onnx: my_model, .*which one"):
        changes(document(plain), document(plain, plain))


@pytest.mark.parametrize(
    ("factor", "options", "code", "message"),
    [
        (1.03, (), 0, "0 of 2 fail at 5% over the old p50"),
        (1.03, ("--fail-over", "2.5%"), 1, "2 of 2 fail at 2.5% over the old p50"),
        (1.06, (), 1, "2 of 2 fail at 5%"),
        (1.06, ("--fail-over", "5"), 2, "fail_over: expected a percentage, such as 5%, got '5'"),
    ],
)
def test_the_exit_code_tells(
    factor: float, options: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: Any
):
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, times in zip(files, (TEN, slower(factor)), strict=True):
        file.write_bytes(dump(document(row(times))))
    assert main(["compare", *map(str, files), *options]) == code
    shown = capsys.readouterr()
    assert message in shown.out + shown.err
