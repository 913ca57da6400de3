"""Checkpoints that were cut short, changed, or are something else; a disk that is full."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dots_zoo.runtime.checkpoint_files import load_state, save_state
from dots_zoo.runtime.errors import DotsZooError

IDENTITY = {"seed": 0, "training": {"rate": 0.1, "betas": (0.5, 0.999)}}


def save(folder: Path, value: int) -> Path:
    return save_state(
        folder, {"a": torch.full((3, 2), float(value)), "b": torch.tensor(value)}, {"at": value}, IDENTITY
    )


def test_the_newest_of_the_last_two_is_read_with_its_bits_and_facts(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    assert load_state(folder, IDENTITY) is None
    paths = [save(folder, value) for value in range(12)]
    assert sorted(folder.iterdir()) == paths[-2:]
    found = load_state(folder, IDENTITY)
    assert found is not None and found.path == paths[-1] and found.facts == {"at": 11} and not found.damaged
    assert torch.equal(found.tensors["a"], torch.full((3, 2), 11.0)) and found.tensors["b"].item() == 11


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 16  # in a tensor, which the format itself does not check
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_file_is_told_of_and_the_one_before_is_used(damage, tmp_path: Path) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    damage(second)
    found = load_state(tmp_path, IDENTITY)
    assert found is not None and found.path == first and found.facts == {"at": 1}
    [sentence] = found.damaged
    assert sentence.startswith(f"{second}: not a checkpoint (") and "cut short or changed" in sentence
    damage(first)
    with pytest.raises(DotsZooError) as caught:
        load_state(tmp_path, IDENTITY)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)
    assert str(caught.value).endswith(f"no other is left: remove {tmp_path} to begin anew")


def test_a_file_of_something_else_with_a_right_sum_is_no_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path / "other", 1)
    plain = path.read_bytes().replace(b"__metadata__", b"__METADATA__")
    from hashlib import sha256

    (tmp_path / f"00000001-{sha256(plain).hexdigest()[:16]}.safetensors").write_bytes(plain)
    with pytest.raises(DotsZooError, match=r"not a checkpoint \(.*\); no other is left"):
        load_state(tmp_path, IDENTITY)


def test_the_option_that_differs_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    other = {"seed": 0, "training": {"rate": 0.2, "betas": (0.5, 0.999)}}
    with pytest.raises(DotsZooError) as caught:
        load_state(tmp_path, other)
    assert str(caught.value) == (
        f"{path}: made with training.rate 0.1, expected 0.2; pass the same options and files, or another "
        "folder"
    )


def test_a_file_that_cannot_be_written_costs_nothing_that_was_there(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # a write beyond 64 bytes fails, as on a full disk
    try:
        with pytest.raises(DotsZooError, match="cannot be written"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [path]
    found = load_state(tmp_path, IDENTITY)
    assert found is not None and found.path == path


FULL = """
import sys, torch
from pathlib import Path
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.checkpoint_files import load_state, save_state
folder = Path(sys.argv[1])
tensors = {"a": torch.ones(2**17)}  # half a mebibyte, on a disk of one and a half
for number in range(2):
    save_state(folder, tensors, {"at": number}, {})
try:
    save_state(folder, tensors, {"at": 2}, {})
except DotsZooError as error:
    print(error)
print(load_state(folder, {}).facts["at"], len(list(folder.iterdir())))
"""


@pytest.mark.processes
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(tmp_path)], capture_output=True
        )
        if shutil.which("mount")
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        ran = subprocess.run(
            [sys.executable, "-c", FULL, str(tmp_path / "c")], capture_output=True, text=True
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert ran.returncode == 0, ran.stderr
    told, left = ran.stdout.splitlines()
    assert "cannot be written" in told and "No space left" in told and left == "1 2"
