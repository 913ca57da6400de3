"""Shipped detectors and segmenters export as they are, with weights that were never trained.

The default run takes the cheap ones. All of them, in minutes:

    python tests/export/convert/test_export_configs.py [precision]
"""

import sys
import tempfile
from pathlib import Path

import pytest
import torch

from dots_zoo.commands.cli import main
from dots_zoo.openmm.progress import quiet

with quiet():
    from dots_zoo.openmm.config import build_model, shipped

# Coarse maps of a single pixel are mostly filling: only detectors with normalised heads bear a smaller size.
SIZES = {"det": "256x320", "seg": "64x96"}
CHEAP = [
    ("det", "retinanet_mobilenetv2_light_fpn_bccd", "64x96"),
    ("det", "retinanet_dots_imagenet_light_fpn_bccd", "64x96"),
    ("seg", "bisenetv1_mnasnet_a1_4xb4-160k_cityscapes-1024x1024", "64x96"),
    ("seg", "bisenetv1_resnet18_camvid", "64x96"),
]
TASKS = {"det": "detect", "seg": "segment"}


def export(toolbox: str, name: str, size: str, folder: Path, precision: str = "fp32") -> int:
    """The exit code of `dots-zoo export` with a checkpoint of random weights."""
    torch.manual_seed(0)
    with quiet():
        model = build_model(name, toolbox)
    torch.save({"state_dict": model.state_dict()}, folder / "w.pth")
    words = ["--checkpoint", str(folder / "w.pth"), "--exporter", "torchscript", "--precision", precision]
    output = str(folder / "m.onnx")
    return main(["export", name, "--task", TASKS[toolbox], "--input", size, *words, "-o", output])


@pytest.mark.parametrize(("toolbox", "name", "size"), CHEAP, ids=[name for _, name, _ in CHEAP])
def test_it_exports(
    toolbox: str, name: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(toolbox, name, size, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "whole graph: boxes" in printed if toolbox == "det" else "whole graph: label_agreement" in printed
    assert (tmp_path / "m.onnx").stat().st_size > 1e6


if __name__ == "__main__":
    failed = []
    for toolbox, size in SIZES.items():
        for name in shipped(toolbox):
            with tempfile.TemporaryDirectory() as folder:
                if export(toolbox, name, size, Path(folder), *sys.argv[1:2]):
                    failed.append(name)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)
