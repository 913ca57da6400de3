"""Check the folder of a search or a training: new, empty, or a run of the same command to resume."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from .errors import DotsZooError

Command = Literal["search", "train"]
HEADER = re.compile(r"# dots-zoo (search|train) ")  # first line of config.yaml, a run's first file
UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.tmp")  # left by write_file where it is killed
CHECKPOINT = "checkpoint/[0-9]*-*.safetensors"


def check_run_folder(out: Path, command: Command, *, resume: bool) -> None:
    """Refuse a folder in which a search or a training can neither begin nor resume.

    Raises DotsZooError where `out` is no folder, where it holds something and `resume` is not set, and where
    with `resume` it holds anything but a run of `command`.
    """
    check_folder(out, command, resume=resume, holds_run=lambda folder: holds(folder, command))


def check_folder(out: Path, command: str, *, resume: bool, holds_run: Callable[[Path], bool]) -> None:
    """Refuse a folder as check_run_folder does; `holds_run` decides on one that is not empty."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DotsZooError(
            f"{out}: expected a new or an empty folder for the run, got a file; choose another"
        )
    if is_empty(out):
        return
    if not resume:
        raise DotsZooError(
            f"{out}: expected a new or an empty folder for the run, got one that holds {_some(out)}; choose "
            "another, or pass --resume if it is a run's"
        )
    if not holds_run(out):
        another = run_of(out)
        got = f"a run of dots-zoo {another}" if another else "other files, which are left as they are"
        raise DotsZooError(
            f"{out}: --resume expected an empty folder or a run of dots-zoo {command}, got {got}; "
            "choose another folder"
        )


def _some(folder: Path) -> str:
    """Return the names of three entries of a folder."""
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def make_folder(out: Path) -> None:
    """Make a folder where it is missing. Raises DotsZooError where that is not possible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DotsZooError(f"{out}: cannot be made: {error.strerror}") from error


def is_empty(folder: Path) -> bool:
    """Return True if a folder holds nothing but temporary files of interrupted writes."""
    return all(UNFINISHED.fullmatch(entry.name) for entry in folder.iterdir())


def holds(folder: Path, command: Command) -> bool:
    """Return True if a folder holds a run of `command`, by its config.yaml, or else by any checkpoint."""
    writer = run_of(folder)
    return writer == command if writer else any(folder.glob(CHECKPOINT))


def run_of(folder: Path) -> str | None:
    """Return the command that wrote the config.yaml of a folder, None where it was not one of ours."""
    try:
        with (folder / "config.yaml").open(encoding="utf-8") as file:
            header = HEADER.match(file.readline(200))
    except (OSError, ValueError):
        return None
    return header[1] if header else None
