"""numba is imported by the first loop that runs, and the operators do without it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

STEP = """
x = torch.randn(2, 16, 6, 6, requires_grad=True)
blocks = [kernels.SepConvBlock(
    nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.Conv2d(16, 16, 1, bias=False),
    nn.BatchNorm2d(16, affine=False))]
y = kernels.sep_conv_sum([blocks], torch.ones(1, requires_grad=True), [x], False)
y = kernels.weighted_sum(torch.ones(1), [kernels.even_odd_pixels(y)[0]], [kernels.even_odd_pixels(y)[1]])
kernels.depthwise(y, torch.ones(16, 1, 5, 5), 1, 2).sum().backward()
print(x.grad.isfinite().all().item(), "numba" in sys.modules)
"""
IMPORT = """
import sys, torch
from torch import nn
{}
from dots_zoo import kernels
print("numba" in sys.modules)
"""
HIDE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
sys.modules["numba"] = sys.modules["llvmlite"] = None
"""


def printed(code: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_numba_is_imported_by_the_first_loop() -> None:
    assert printed(IMPORT.format("") + STEP) == ["False", "True", "True"]


def test_without_numba_the_references_run() -> None:
    assert printed(IMPORT.format(HIDE) + STEP.replace('"numba" in sys.modules', "kernels.HAS_NUMBA")) == [
        "True",
        "True",
        "False",
    ]
