"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path

from .errors import DotsZooError


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to a temporary file beside `path` and rename it, so that no reader meets half a file.

    Raises DotsZooError, and leaves what was at `path`, where the folder is missing or may not be written.
    """
    path = Path(path)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise DotsZooError(f"{path}: cannot be written ({error}); the folder has to exist") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
    return path
