"""The checks that a row has to pass before it may be published: parity, provider, stability.

The verdict follows from the row's other entries, so that a reader of the JSON can take it again.
"""

from .rows import Row

WAIVERS = ("fallback", "unproven")  # what --allow takes: of the provider's check and of the parity check
CPU = "CPUExecutionProvider"


def failures(row: Row) -> dict[str, str]:
    """Return check -> the reason of its failure; empty where the row may be published."""
    verdicts = {"parity": _parity(row), "provider": _provider(row), "stability": _stability(row)}
    return {check: why for check, why in verdicts.items() if why}


def _parity(row: Row) -> str:
    """Return why the parity check failed, or "". Rows of torch are the reference: they have none."""
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
    """Return why the provider check failed: nodes that ran on another provider than the requested one."""
    if row.engine != "onnxruntime" or "fallback" in row.allowed:
        return ""
    nodes, total = row.nodes_by_provider, sum(row.nodes_by_provider.values())
    if not nodes.get(row.provider_asked):
        return f"none of {total} nodes ran on {row.provider_asked}"
    fallback_nodes = nodes.get(CPU, 0) if row.provider_asked != CPU else 0
    if fallback_nodes:
        fallback = f"{fallback_nodes} of {total} nodes fell back to {CPU}"
        return f"{fallback}; --allow fallback publishes the row all the same"
    return ""


def _stability(row: Row) -> str:
    """Return why the stability check failed: medians of the rounds that lie too far apart."""
    spreads = {"device-resident": row.resident.spread, "end-to-end": row.end_to_end.spread}
    excessive = [f"{spread:.0%} ({timing})" for timing, spread in spreads.items() if spread > row.max_spread]
    allowed = f"{row.max_spread:.0%} allowed: measure on a quiet machine"
    return f"medians of rounds lie {' and '.join(excessive)} of p50 apart, {allowed}" if excessive else ""
