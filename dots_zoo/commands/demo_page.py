"""The demo's page; it holds nothing that is not in demo.json or in the pictures of its folder."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..drawing import html as webpage

CAVEAT = (
    "Digits are too easy to rank cells: nearest neighbours come close, and a random cell may beat the one "
    "that was found. The table shows that the chain works, not which cell is better; for that, search and "
    "retrain on CIFAR-10 or ImageNet, over several seeds."
)


def page(result: Mapping[str, Any], out: Path) -> str:
    """HTML of a finished demo whose files lie in `out`."""
    data, seconds = result["data"], result["seconds"]
    size = "x".join(map(str, data["input_size"]))
    intro = (
        f"DOTS searched a cell on scikit-learn's handwritten digits ({data['images']} training and "
        f"{data['test_images']} test images, input {size}). The cell was trained from scratch, registered "
        "with timm, exported to ONNX, checked against PyTorch and measured."
    )
    accuracies = [
        (row["name"], f"{100 * row['accuracy']:.2f} %", _count(row.get("params")), _count(row.get("macs")))
        for row in result["accuracies"]
    ]
    parity = result["parity"]
    check = (
        f"Largest difference to PyTorch over batches of {' and '.join(map(str, parity['batches']))}: "
        f"{parity['error']:.1e} of how much the output moves between images; {parity['tolerance']:g} is "
        "allowed."
    )
    times = [{"batch": row["batch"], **row["resident"]} for row in result["bench"]["rows"]]
    rows = [
        (row["batch"], *(f"{row[key]:.3f}" for key in ("p50_ms", "p90_ms", "p95_ms", "p99_ms")), _rate(row))
        for row in times
    ]
    machine, versions = result["bench"]["machine"], result["bench"]["versions"]
    cell, plots = sorted(out.glob("cell.svg")), sorted((out / "search/plots").glob("*.png"))
    return webpage.document(
        "dots_zoo demo",
        "\n".join(
            [
                f"<p>{escape(intro)}</p><h2>The cell that was found</h2>",
                *(webpage.picture(path, "normal and reduction cell") for path in cell),
                f"<pre>{escape(result['genotype'])}</pre><h2>Test accuracy</h2>",
                webpage.table(("model", "test accuracy", "parameters", "MACs"), accuracies),
                f"<p>{escape(CAVEAT)}</p><h2>ONNX</h2><p>{escape(check)}</p>",
                "<h2>Latency in ONNX Runtime, milliseconds a run</h2>",
                webpage.table(
                    ("batch", "p50", "p90", "p95", "p99", "images/s"),
                    rows,
                    [row["noisy"] for row in times],
                ),
                "<p>CPU provider, one thread. A red row varied by more than 5 %: measure it again on a quiet "
                "machine.</p><h2>How the search went</h2>",
                *(webpage.picture(plot, plot.stem.replace("_", " ")) for plot in plots),
                "<h2>Where and when</h2>",
                webpage.facts([*machine.items(), *versions.items(), ("seed", result["seed"])]),
                webpage.facts((f"{name}, seconds", value) for name, value in seconds.items()),
            ]
        ),
    )


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _rate(row: Mapping[str, Any]) -> str:
    return f"{row['throughput_per_s']:.0f}" + (" (noisy)" if row["noisy"] else "")
