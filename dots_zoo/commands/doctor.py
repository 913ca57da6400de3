"""Report for `dots-zoo doctor` what is installed, what is missing, and which packages conflict."""

import platform
from collections.abc import Sequence
from importlib import import_module, metadata

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ..options.command_line import CommandLine

EXTRAS = ("search", "train", "export", "mm")
CORE = ("torch", "torchvision", "timm", "jsonargparse", "numpy", "safetensors")
# Distributions whose module has another name.
MODULES = {
    "scikit-learn": "sklearn",
    "onnxruntime-gpu": "onnxruntime",
    "mmcv-lite": "mmcv",
    "mmsegmentation": "mmseg",
    "opencv-python-headless": "cv2",
}


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirements(extra: str) -> list[str]:
    """Return the distributions that an extra of dots-zoo requires on this platform."""
    core = [r.name for r in _requirements("")]
    return [r.name for r in _requirements(extra) if r.name not in core]


def _requirements(extra: str) -> list[Requirement]:
    """Return the requirements of the core and an extra on this platform; of the core alone for ""."""
    parsed = [Requirement(line) for line in metadata.requires("dots-zoo") or []]
    return [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})]


def extras_with(module: str) -> list[str]:
    """Return the extras that require the distribution of a top-level module."""
    return [extra for extra in EXTRAS if module in (MODULES.get(name, name) for name in requirements(extra))]


def outdated() -> list[str]:
    """Return a sentence for Python and for each requirement of the core whose version is not supported."""
    python, supported = platform.python_version(), metadata.metadata("dots-zoo")["Requires-Python"]
    problems = []
    if not SpecifierSet(supported).contains(python, prereleases=True):
        problems.append(f"python {python} is not supported: expected {supported}")
    for requirement in _requirements(""):
        version = installed(requirement.name)
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                f"{requirement.name} {version} is not supported: expected {requirement.specifier}: "
                f"pip install --upgrade '{requirement.name}{requirement.specifier}'"
            )
    return problems


def missing(extra: str) -> list[str]:
    """Return the distributions of an extra that are not installed."""
    return [name for name in requirements(extra) if installed(name) is None]


def _providers() -> str:
    if installed("onnxruntime") is None and installed("onnxruntime-gpu") is None:
        return "onnxruntime is not installed"
    return (
        ", ".join(import_module("onnxruntime").get_available_providers())
        + " (as built; a session may still refuse)"
    )


def command_line() -> CommandLine:
    """Return the options of the command."""
    return CommandLine("doctor", "Report versions, providers and missing extras.", "", ["doctor"])


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Print the report; return 1 where there is a problem."""
    command_line().parse(argv)
    lines, problems = diagnose()
    print("\n".join([*lines, *(f"PROBLEM: {problem}" for problem in problems)]))
    return 1 if problems else 0


def diagnose() -> tuple[list[str], list[str]]:
    """Return (lines of the report, problems); each problem says what to do."""
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
    return lines, [*problems, *outdated()]
