"""What a row has to pass before it may be published: parity, provider, stability.

The verdict follows from the row's other entries, so that a reader of the JSON can take it again.
"""

from .rows import Row

WAIVERS = ("fallback", "unproven")  # what --allow takes: of the provider's check and of the parity check
CPU = "CPUExecutionProvider"


def failures(row: Row) -> dict[str, str]:
    """Check -> one sentence of why it failed; empty where the row may be published."""
    verdicts = {"parity": _parity(row), "provider": _provider(row), "stability": _stability(row)}
    return {check: why for check, why in verdicts.items() if why}


def _parity(row: Row) -> str:
    """torch is what a graph is compared with, so its own rows have nothing to prove."""
    if row.engine != "onnxruntime" or "unproven" in row.allowed:
        return ""
    if row.parity_error is None or row.parity_tolerance is None:
        return "the file records no comparison with torch: write it with dots-zoo export, or --allow unproven"
    if row.parity_error > row.parity_tolerance:
        return (
            f"differs from torch by {row.parity_error:.2g} of the movement, {row.parity_tolerance:g} allowed"
        )
    return ""


def _provider(row: Row) -> str:
    if row.engine != "onnxruntime" or "fallback" in row.allowed:
        return ""
    nodes, total = row.nodes_by_provider, sum(row.nodes_by_provider.values())
    if not nodes.get(row.provider_asked):
        return f"none of {total} nodes ran on {row.provider_asked}"
    fallen = nodes.get(CPU, 0) if row.provider_asked != CPU else 0
    if fallen:
        return (
            f"{fallen} of {total} nodes fell back to {CPU}; --allow fallback publishes the row all the same"
        )
    return ""


def _stability(row: Row) -> str:
    kinds = {"device-resident": row.resident.spread, "end-to-end": row.end_to_end.spread}
    wild = [f"{spread:.0%} ({kind})" for kind, spread in kinds.items() if spread > row.max_spread]
    allowed = f"{row.max_spread:.0%} allowed: measure on a quiet machine"
    return f"medians of rounds lie {' and '.join(wild)} of p50 apart, {allowed}" if wild else ""
