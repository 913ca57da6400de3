"""Save the state of a run in files, the last two of them, each named by a hash of its contents.

A name is a number that grows and the beginning of the SHA-256 sum of the contents, so that a truncated or
changed file is recognised. The format is safetensors, with everything that is not a tensor as JSON in its
header. A file is written atomically, and an older one is removed only after that: there is always a good one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .atomic_write import write_file
from .config import dotted
from .errors import DotsZooError

KEPT = 2  # the last file, and the one before in case that is damaged later


@dataclass(frozen=True)
class Saved:
    """The contents of a checkpoint file; `damaged` has a sentence for every newer file, all unusable."""

    path: Path
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    damaged: Sequence[str]


def save_state(
    folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], identity: Mapping[str, Any]
) -> Path:
    """Write the state of a run into `folder`, which is created; of the files there the last two stay.

    identity: what a run must share with the checkpoint to resume from it. Raises DotsZooError where the file
    cannot be written; then all earlier files stay.
    """
    header = {"state": json.dumps({"identity": identity, "facts": facts})}
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, header)
    with suppress(OSError):  # write_file raises the DotsZooError
        folder.mkdir(exist_ok=True)
    before = _files(folder)
    next_number = 1 + int(before[-1].name.partition("-")[0]) if before else 1
    path = write_file(folder / f"{next_number:08d}-{_sum(data)}.safetensors", data)
    for old in before[: 1 - KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: Path, identity: Mapping[str, Any]) -> Saved | None:
    """Load the newest file that is whole; return None where there is no file at all.

    Raises DotsZooError where none is whole, and where a run of another identity wrote it.
    """
    damaged: list[str] = []
    for path in reversed(_files(folder)):
        try:
            data = path.read_bytes()
            if _sum(data) != path.stem.partition("-")[2]:
                raise ValueError("its contents are not those that its name was made of: cut short or changed")
            header = json.loads(_header(data))
            saved = Saved(path, load(data), header["facts"], tuple(damaged))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            damaged.append(f"{path}: not a checkpoint ({error})")
            continue
        _refuse_another(path, header["identity"], json.loads(json.dumps(identity)))
        return saved
    if damaged:
        raise DotsZooError(f"{'; '.join(damaged)}; no other is left: remove {folder} to begin anew")
    return None


def _files(folder: Path) -> list[Path]:
    """Return the checkpoint files of a folder in the order in which they were written."""
    return sorted(folder.glob("[0-9]*-*.safetensors"))


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _header(data: bytes) -> str:
    """Return our entry in the header of a safetensors file: eight bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    text: str = json.loads(data[8 : 8 + length])["__metadata__"]["state"]
    return text


def _refuse_another(path: Path, saved: Any, identity: Any) -> None:
    if saved == identity:
        return
    theirs, ours = dotted(saved), dotted(identity)
    name = next(name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name))
    raise DotsZooError(
        f"{path}: made with {name} {theirs.get(name)!r}, expected {ours.get(name)!r}; pass the same options "
        "and files, or another folder"
    )
