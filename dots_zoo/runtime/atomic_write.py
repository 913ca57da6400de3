"""Write files atomically: whole or not at all."""

import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import DotsZooError

IRREGULAR = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to a temporary file beside `path` and rename it, so that no reader sees a partial file.

    A symbolic link stays, and the file that it leads to is written. Raises DotsZooError, and leaves what was
    at `path`, where the folder is missing or may not be written, and where `path` is a device, a pipe, a
    socket or a folder.
    """
    path = Path(path)
    [written] = write_files(path.parent, {path.name: data})
    return written


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write several files into one folder as `write_file` does: all of them, or none where space runs out."""
    plan = [(folder / name, follow_links(folder / name), data) for name, data in contents.items()]
    temporaries = [target.with_name(f".{secrets.token_hex(8)}.tmp") for _, target, _ in plan]
    at = folder
    try:
        for (path, _, data), temporary in zip(plan, temporaries, strict=True):
            at = path
            temporary.write_bytes(data)
        for (path, target, _), temporary in zip(plan, temporaries, strict=True):
            at = path
            os.replace(temporary, target)
    except OSError as error:
        raise _refusal(at, error) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()
    return [path for path, _, _ in plan]


def follow_links(path: Path) -> Path:
    """Follow all symbolic links of `path` to a regular or absent file.

    Raises DotsZooError for anything else: to rename a file over a device would remove the device.
    """
    try:
        file_type = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        file_type = stat.S_IFREG
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _refusal(path, error) from error
    if file_type != stat.S_IFREG:
        raise DotsZooError(
            f"{path}: cannot be written: give a file in an existing, writable folder; this is "
            f"{IRREGULAR.get(file_type, 'no regular file')}"
        )
    return Path(os.path.realpath(path))


def check_output(path: Path) -> None:
    """Raise DotsZooError for an output that `write_file` could not write, before the work and not after it.

    The path must be a regular file or absent, in a folder that exists and may be written.
    """
    if not os.access(follow_links(path).parent, os.W_OK):
        raise DotsZooError(f"{path}: cannot be written: give a file in an existing, writable folder")


def _refusal(path: Path, error: OSError | ValueError) -> DotsZooError:
    reason = getattr(error, "strerror", None) or error
    return DotsZooError(
        f"{path}: cannot be written ({reason}); the folder has to exist, be writable and have space"
    )
