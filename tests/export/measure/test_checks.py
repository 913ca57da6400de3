"""The three checks that keep a row from being published, each by hand."""

from typing import Any

import pytest

from helpers.bench_document import row

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
DRIFTING = [[10.0, 10.0], [12.0, 12.0]]  # medians 10 and 12, p50 11: 18 %


@pytest.mark.parametrize(
    ("changes", "failures"),
    [
        ({}, {}),
        (
            {"parity_error": None, "parity_tolerance": None},
            {
                "parity": "the file records no comparison with torch: write it with dots-zoo export, "
                "or --allow unproven"
            },
        ),
        ({"parity_error": None, "parity_tolerance": None, "allowed": ["unproven"]}, {}),
        (
            {"parity_error": 2e-3},
            {"parity": "differs from torch by 0.002 of the movement, 0.001 allowed"},
        ),
        ({"engine": "torch", "provider_asked": "cpu", "parity_error": None, "nodes_by_provider": {}}, {}),
        ({"provider_asked": CUDA, "nodes_by_provider": {CUDA: 9}}, {}),
        (
            {"provider_asked": CUDA, "nodes_by_provider": {CPU: 2, CUDA: 7}},
            {
                "provider": "2 of 9 nodes fell back to CPUExecutionProvider; --allow fallback publishes the "
                "row all the same"
            },
        ),
        (
            {"provider_asked": CUDA, "nodes_by_provider": {CPU: 2, CUDA: 7}, "allowed": ["fallback"]},
            {},
        ),
        ({"provider_asked": TENSORRT, "nodes_by_provider": {TENSORRT: 1, CUDA: 3}}, {}),
        (
            {"provider_asked": TENSORRT, "nodes_by_provider": {CUDA: 3}},
            {"provider": "none of 3 nodes ran on TensorrtExecutionProvider"},
        ),
        (
            {"times": DRIFTING},
            {
                "stability": "medians of rounds lie 18% (device-resident) and 18% (end-to-end) of p50 apart, "
                "10% allowed: measure on a quiet machine"
            },
        ),
        ({"times": DRIFTING, "max_spread": 0.19}, {}),
        (
            {"host_times": DRIFTING},
            {
                "stability": "medians of rounds lie 18% (end-to-end) of p50 apart, 10% allowed: measure on a "
                "quiet machine"
            },
        ),
    ],
)
def test_verdicts(changes: dict[str, Any], failures: dict[str, str]) -> None:
    assert row(**changes)["failures"] == failures
