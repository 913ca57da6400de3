"""Self-contained HTML pages: nothing from outside, readable in light and dark and on a phone.

Scripts do not run on them, except for the one below, which sorts tables: the page's policy names its hash.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #d8dbe0; --mark: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --line: #3a3f47; --mark: #ff8a80; } }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figure svg { width: 100%; max-width: 36rem; height: auto; }
figure img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
pre { overflow-x: auto; padding: 0.6rem; border: 1px solid var(--line); border-radius: 4px; }
@media (max-width: 60rem) { figure.scroll img { max-width: 75rem; } }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.875rem; }
th, td { padding: 0.35rem 0.6rem; text-align: right; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
td:first-child { min-width: 8rem; max-width: 12rem; white-space: normal; overflow-wrap: anywhere; }
tr.marked td { color: var(--mark); font-weight: 600; }
.wide { min-width: 20rem; text-align: left; } td.wide { white-space: normal; }
th:has(button) { white-space: normal; vertical-align: bottom; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1rem; }
figcaption { font-size: 0.875rem; }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const order = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
    const rows = [...body.rows].sort(down ? (a, b) => order(b, a) : order);
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  });
}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


def document(title: str, body: str, sortable: bool = False) -> str:
    """A whole page; `body` is HTML, `title` is text; `sortable`: with the script for sortable_table."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'" if sortable else POLICY
    script = f"<script>{SCRIPT}</script>" if sortable else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n{script}</body></html>\n"
    )


def table(headings: Iterable[str], rows: Iterable[Sequence[Any]], marked: Iterable[bool] = ()) -> str:
    """A table of texts that scrolls sideways on a narrow screen; `marked` rows stand out."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    marks = iter(marked)
    body = "\n".join(
        ('<tr class="marked">' if next(marks, False) else "<tr>")
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def sortable_table(
    headings: Iterable[str],
    rows: Iterable[Sequence[tuple[Any, Any]]],
    marked: Iterable[bool] = (),
    wide: int | None = None,
) -> str:
    """A table that sorts by the column whose heading is pressed; cells are (text, what it sorts by).

    wide: the column whose text may take several lines.
    """
    head = "".join(
        f'<th{_class(i == wide)}><button type="button">{escape(heading)}</button></th>'
        for i, heading in enumerate(headings)
    )
    marks = iter(marked)
    body = "\n".join(
        ('<tr class="marked">' if next(marks, False) else "<tr>")
        + "".join(
            f'<td{_class(i == wide)} data-key="{_key(key)}">{escape(str(text))}</td>'
            for i, (text, key) in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _class(is_wide: bool) -> str:
    return ' class="wide"' if is_wide else ""


def _key(value: Any) -> str:
    """As JavaScript reads a number."""
    return escape(str(value).replace("inf", "Infinity") if isinstance(value, float) else str(value))


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one pair a line."""
    return "<dl>" + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs) + "</dl>"


def picture(path: Path, caption: str, scroll: bool = False) -> str:
    """An SVG or PNG file, inside the page; `scroll`: as large on a narrow screen, where it scrolls."""
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:{MEDIA[path.suffix]};base64,{data}">'
    kind = ' class="scroll"' if scroll else ""
    return f"<figure{kind}>{image}<figcaption>{escape(caption)}</figcaption></figure>"
