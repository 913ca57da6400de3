import os
import socket
from pathlib import Path

import pytest

from dots_zoo.runtime.atomic_write import write_file, write_files
from dots_zoo.runtime.errors import DotsZooError


def test_replaces_a_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert write_file(str(path), b"new") == path
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_rename_keeps_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(DotsZooError, match=r"a\.txt: cannot be written \(.*Permission denied"):
        write_file(path, b"new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["missing/a.txt", "file/a.txt", "nul\0.txt", "x" * 300])
def test_a_path_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(DotsZooError, match="cannot be written .*the folder has to exist"):
        write_file(tmp_path / name, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def special(folder: Path, form: str) -> Path:
    """A thing in the current folder that is no regular file, or a link to one. Sockets need short paths."""
    path = folder / "special"
    if form in ("pipe", "link to a pipe"):
        os.mkfifo(path)
    elif form == "socket":
        with socket.socket(socket.AF_UNIX) as unbound:
            unbound.bind(os.path.relpath(path))
    else:
        path.mkdir()
    if form.startswith("link"):
        (folder / "link").symlink_to(path)
        return folder / "link"
    return path


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ("pipe", "a named pipe"),
        ("socket", "a socket"),
        ("folder", "a folder"),
        ("link to a pipe", "a named pipe"),
    ],
)
def test_what_is_no_regular_file_is_refused_and_stays(form, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = special(tmp_path, form)
    before = {entry.name: entry.lstat() for entry in tmp_path.iterdir()}
    with pytest.raises(DotsZooError, match=f"{path.name}: cannot be written: .*; this is {named}$"):
        write_file(path, b"new")
    with pytest.raises(DotsZooError, match=f"this is {named}$"):
        write_files(tmp_path, {"first": b"1", path.name: b"2"})  # all or none
    assert {entry.name: entry.lstat() for entry in tmp_path.iterdir()} == before


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(there, tmp_path):
    real, link, chain = tmp_path / "real", tmp_path / "links/a.txt", tmp_path / "links/b.txt"
    real.mkdir()
    link.parent.mkdir()
    if there:
        (real / "target.txt").write_text("old")
    link.symlink_to("../real/target.txt")
    chain.symlink_to("a.txt")
    assert write_file(chain, b"new") == chain
    assert link.is_symlink() and chain.is_symlink()
    assert (real / "target.txt").read_bytes() == link.read_bytes() == b"new"
    assert not (real / "target.txt").is_symlink() and len(list(real.iterdir())) == 1
    assert {entry.name for entry in link.parent.iterdir()} == {"a.txt", "b.txt"}


def test_a_link_in_a_circle_and_one_into_a_missing_folder_are_refused(tmp_path):
    circle, away = tmp_path / "circle", tmp_path / "away"
    circle.symlink_to("circle")
    away.symlink_to("missing/target.txt")
    for path in (circle, away):
        with pytest.raises(DotsZooError, match=f"{path.name}: cannot be written .*the folder has to exist"):
            write_file(path, b"new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["away", "circle"]
