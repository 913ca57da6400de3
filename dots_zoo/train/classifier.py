"""Open a classifier for prediction: a network by its reference, or a file that `dots-zoo export` wrote.

Both say themselves how an image becomes their input, so that both give the same answers.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..reference import create, resolve
from ..runtime.errors import DotsZooError

SUFFIX = ".onnx"
PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Input:
    """How an image becomes the input of a network.

    Args:
        size: (C, H, W).
        mean: per channel, of pixels scaled to [0, 1]; std alike.
        crop_pct: share of the resized image's shorter side that the centre crop keeps.
        interpolation: of the resizing, as PIL names it.
    """

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str


@dataclass(frozen=True)
class Classifier:
    """A network that is ready to predict.

    Args:
        name: the name in messages.
        run: function of normalised images (N, C, H, W) to logits (N, classes), both on the CPU.
        input: how an image becomes its input.
        class_names: names of the classes; empty where it knows none.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    input: Input
    class_names: tuple[str, ...] = ()

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its index as text."""
        return self.class_names[index] if self.class_names else str(index)


def open_classifier(name: str, device: str | None, **shape: Any) -> Classifier:
    """Open a network by its reference (reference.py), or an ONNX file; device None: a GPU if there is one.

    shape: macro, channels and layers, as for `resolve`. Raises DotsZooError where it has no weights, reads
    other than grey or RGB images, or is no classifier, and for a device that is not there.
    """
    place = chosen_device(device)
    opened = _open_file(name, place, device) if name.endswith(SUFFIX) else _open_network(name, place, shape)
    if opened.input.size[0] not in (1, 3):
        raise DotsZooError(
            f"{name}: expected a network of grey (1 channel) or RGB images (3), got "
            f"{opened.input.size[0]} channels"
        )
    return opened


def chosen_device(device: str | None) -> torch.device:
    """Return the device of a name, cpu, cuda or cuda:N; None: a GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DotsZooError(f"device: expected cpu, cuda or cuda:N, got {device!r}")
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise DotsZooError(
            f"device: {device} is not there: torch finds {torch.cuda.device_count()} GPUs; leave it out, "
            "or say cpu"
        )
    return place


def _open_network(name: str, device: torch.device, shape: Mapping[str, Any]) -> Classifier:
    network = create(resolve(name, **shape), weights=True)
    if not getattr(network, "num_classes", 0):
        raise DotsZooError(f"{name}: expected a network with a classifier, got one without")
    network = network.to(device, memory_format=torch.channels_last).eval()
    cfg: Mapping[str, Any] = network.pretrained_cfg

    def run(images: Tensor) -> Tensor:
        logits: Tensor = network(images.to(device, memory_format=torch.channels_last))
        return logits.float().cpu()

    names = tuple(cfg.get("label_names") or ())
    return Classifier(name, run, _input(cfg), names if len(names) == network.num_classes else ())


def _input(facts: Mapping[str, Any]) -> Input:
    channels, height, width = facts["input_size"]
    return Input(
        size=(channels, height, width),
        # one channel of a network whose statistics are of three: those of their mean, as timm adapts weights
        mean=_per_channel(facts["mean"], channels),
        std=_per_channel(facts["std"], channels),
        crop_pct=float(facts["crop_pct"]),
        interpolation=str(facts["interpolation"]),
    )


def _per_channel(values: Any, channels: int) -> tuple[float, ...]:
    given = tuple(float(value) for value in values)
    return given if len(given) == channels else (sum(given) / len(given),) * channels


def _open_file(name: str, device: torch.device, requested: str | None) -> Classifier:
    """Open an ONNX file by its own metadata. Raises ModuleNotFoundError without the extra `export`."""
    import onnxruntime as ort

    session = _session(Path(name), device, requested, ort)
    facts = _metadata(name, session)
    [image], [output] = session.get_inputs(), session.get_outputs()
    dtype = np.float16 if image.type == "tensor(float16)" else np.float32
    fixed = image.shape[0] if isinstance(image.shape[0], int) else None

    def run(images: Tensor) -> Tensor:
        parts = images.split(fixed or len(images))
        padded = (_padded(part, fixed or len(part)) for part in parts)
        rows = [
            session.run([output.name], {image.name: batch.contiguous().numpy().astype(dtype)})[0]
            for batch in padded
        ]
        return torch.from_numpy(np.concatenate(rows)[: len(images)]).float()

    return Classifier(name, run, _input(facts), tuple(facts.get("class_names", ())))


def _padded(images: Tensor, length: int) -> Tensor:
    """Repeat the last image up to the batch that a graph was exported for."""
    return torch.cat([images, images[-1:].expand(length - len(images), -1, -1, -1)])


def _session(path: Path, device: torch.device, requested: str | None, ort: Any) -> Any:
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob(f"*{SUFFIX}")]
        near = difflib.get_close_matches(str(path), beside)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        raise DotsZooError(f"{path}: expected an ONNX file, got nothing there{hint}")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal: an error is raised
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and PROVIDER in ort.get_available_providers():
        if hasattr(ort, "preload_dlls"):  # finds the CUDA libraries that pip installed beside torch
            ort.preload_dlls()
        providers.insert(0, (PROVIDER, {"device_id": str(device.index or 0)}))
    try:
        session = ort.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # those of ONNX Runtime have no common base
        raise DotsZooError(
            f"{path}: ONNX Runtime cannot run this file: {str(error).splitlines()[0]}"
        ) from error
    if requested is not None and device.type == "cuda" and session.get_providers()[0] != PROVIDER:
        raise DotsZooError(
            f"{path}: ONNX Runtime does not start on {requested}; dots-zoo doctor says what is "
            "missing, or say --device cpu"
        )
    return session


def _metadata(name: str, session: Any) -> dict[str, Any]:
    """Return what `dots-zoo export` wrote into a classifier's file."""
    facts = dict(session.get_modelmeta().custom_metadata_map)
    if facts.get("task", "classify") != "classify" or len(session.get_outputs()) != 1:
        raise DotsZooError(
            f"{name}: expected a classifier, got a file of the task {facts.get('task', 'unknown')}; for a "
            "detector or a segmenter there are dots-zoo det predict and dots-zoo seg predict"
        )
    needed = ("input_size", "mean", "std", "crop_pct", "interpolation")
    if missing := [key for key in needed if key not in facts]:
        raise DotsZooError(
            f"{name}: expected {', '.join(needed)} in the file's metadata, as dots-zoo export writes "
            f"them, got no {missing[0]}; export the network again"
        )
    try:
        return {key: json.loads(facts[key]) for key in (*needed, "class_names") if key in facts}
    except ValueError as error:
        raise DotsZooError(
            f"{name}: its metadata cannot be read: {error}; export the network again"
        ) from None
