"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from .errors import DotsZooError


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to a temporary file beside `path` and rename it, so that no reader meets half a file.

    Raises DotsZooError, and leaves what was at `path`, where the folder is missing or may not be written.
    """
    path = Path(path)
    [written] = write_files(path.parent, {path.name: data})
    return written


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Several files into one folder as `write_file` does: all, or none where one finds no space."""
    plan = [(folder / name, folder / f".{secrets.token_hex(8)}.tmp", data) for name, data in contents.items()]
    at = folder
    try:
        for path, temporary, data in plan:
            at = path
            temporary.write_bytes(data)
        for at, temporary, _ in plan:
            os.replace(temporary, at)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise DotsZooError(
            f"{at}: cannot be written ({reason}); the folder has to exist, be writable and have space"
        ) from error
    finally:
        for _, temporary, _ in plan:
            with contextlib.suppress(OSError, ValueError):
                temporary.unlink()
    return [path for path, _, _ in plan]
