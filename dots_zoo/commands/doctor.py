"""`dots-zoo doctor`: what is installed, what is missing, and what gets in each other's way."""

import platform
import re
import sys
from importlib import import_module, metadata

import torch

EXTRAS = ("search", "train", "export", "mm")
CORE = ("torch", "torchvision", "timm", "jsonargparse", "numpy", "safetensors")


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirements(extra: str) -> list[str]:
    """The distributions that an extra of dots-zoo asks for on this platform."""
    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in metadata.requires("dots-zoo") or []]
    return [
        r.name
        for r in parsed
        if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
    ]


def missing(extra: str) -> list[str]:
    """The distributions of an extra that are not installed."""
    return [name for name in requirements(extra) if installed(name) is None]


def _providers() -> str:
    if installed("onnxruntime") is None and installed("onnxruntime-gpu") is None:
        return "onnxruntime is not installed"
    return (
        ", ".join(import_module("onnxruntime").get_available_providers())
        + " (as built; a session may still refuse)"
    )


def diagnose() -> tuple[list[str], list[str]]:
    """(lines of the report, problems); each problem says what to do."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU that torch can use"
    lines = [
        f"python         {platform.python_version()} on {platform.platform()}",
        *(f"{name:<14} {installed(name) or 'not installed'}" for name in ("dots-zoo", *CORE)),
        f"device         {gpu}",
        f"onnxruntime    {installed('onnxruntime') or 'not installed'}",
        f"onnxruntime-gpu {installed('onnxruntime-gpu') or 'not installed'}",
        f"providers      {_providers()}",
    ]
    problems = []
    if installed("onnxruntime") and installed("onnxruntime-gpu"):
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "uninstall both, then install the one you want again"
        )
    for extra in EXTRAS:
        absent = missing(extra)
        lines.append(
            f"extra {extra:<8} "
            + (f"missing {', '.join(absent)}: pip install 'dots-zoo[{extra}]'" if absent else "complete")
        )
    if not re.match(r"3\.(11|12|13)\.", platform.python_version()):
        problems.append(f"python {sys.version.split()[0]} is not supported: expected 3.11 to 3.13")
    return lines, problems
