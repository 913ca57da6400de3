"""Self-contained HTML pages: no scripts, nothing from outside, readable in light and dark and on a phone."""

import base64
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
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.875rem; }
th, td { padding: 0.35rem 0.6rem; text-align: right; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
td:first-child { max-width: 12rem; white-space: normal; overflow-wrap: anywhere; }
tr.marked td { color: var(--mark); font-weight: 600; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


def document(title: str, body: str) -> str:
    """A whole page; `body` is HTML, `title` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
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


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one pair a line."""
    return "<dl>" + "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs) + "</dl>"


def picture(path: Path, caption: str) -> str:
    """An SVG or PNG file, inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:{MEDIA[path.suffix]};base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
