"""Where a run stands, in files: the last two of them, each named for what it holds.

A name is a number that grows and the beginning of the SHA-256 sum of the contents, so a file that was cut
short or changed is told from a whole one. The format is safetensors; its header holds what is not a tensor,
as JSON. A file is written whole or not at all, and an older one goes only after that: there is always a good
one.
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
from .config_cli import dotted
from .errors import DotsZooError

KEPT = 2  # the last file, and the one before in case that is damaged later


@dataclass(frozen=True)
class Saved:
    """What a file holds. damaged: a sentence for every newer file, which could not be used."""

    path: Path
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    damaged: Sequence[str]


def save_state(
    folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], identity: Mapping[str, Any]
) -> Path:
    """Write where a run stands into `folder`, which is made; of the files there the last two stay.

    identity: what a run has to share to go on from it. Raises DotsZooError where it cannot be written; then
    all that was there stays.
    """
    header = {"state": json.dumps({"identity": identity, "facts": facts})}
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, header)
    with suppress(OSError):  # write_file says what is wrong
        folder.mkdir(exist_ok=True)
    before = _files(folder)
    number = 1 + int(before[-1].name.partition("-")[0]) if before else 1
    path = write_file(folder / f"{number:08d}-{_sum(data)}.safetensors", data)
    for old in before[: 1 - KEPT]:
        old.unlink(missing_ok=True)
    return path


def load_state(folder: Path, identity: Mapping[str, Any]) -> Saved | None:
    """The newest file that is whole, None where there is none at all.

    Raises DotsZooError where none is whole, and where a run of another identity wrote it.
    """
    damaged: list[str] = []
    for path in reversed(_files(folder)):
        try:
            data = path.read_bytes()
            if _sum(data) != path.stem.partition("-")[2]:
                raise ValueError("its contents are not those that its name was made of: cut short or changed")
            header = json.loads(_header(data))
            found = Saved(path, load(data), header["facts"], tuple(damaged))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            damaged.append(f"{path}: not a checkpoint ({error})")
            continue
        _refuse_another(path, header["identity"], json.loads(json.dumps(identity)))
        return found
    if damaged:
        raise DotsZooError(f"{'; '.join(damaged)}; no other is left: remove {folder} to begin anew")
    return None


def _files(folder: Path) -> list[Path]:
    """In the order they were written."""
    return sorted(folder.glob("[0-9]*-*.safetensors"))


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _header(data: bytes) -> str:
    """Of a safetensors file: eight bytes of length, then JSON, whose __metadata__ is ours."""
    length = int.from_bytes(data[:8], "little")
    text: str = json.loads(data[8 : 8 + length])["__metadata__"]["state"]
    return text


def _refuse_another(path: Path, saved: Any, identity: Any) -> None:
    if saved == identity:
        return
    there, here = dotted(saved), dotted(identity)
    name = next(name for name in sorted({*there, *here}) if there.get(name) != here.get(name))
    raise DotsZooError(
        f"{path}: made with {name} {there.get(name)!r}, expected {here.get(name)!r}; pass the same options "
        "and files, or another folder"
    )
