import pytest

from dots_zoo.runtime.atomic_write import write_file
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


@pytest.mark.parametrize("name", ["missing/a.txt", "file/a.txt", "", "nul\0.txt", "x" * 300])
def test_a_path_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(DotsZooError, match="cannot be written .*the folder has to exist"):
        write_file(tmp_path / name, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
