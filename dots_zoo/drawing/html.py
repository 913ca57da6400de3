"""Self-contained HTML pages from Jinja2 templates: nothing from outside, readable in light and dark.

A room keeps its pages in its folder templates/. They extend `page.html.j2`, or `sortable_page.html.j2` where
a table sorts, or `copying_page.html.j2` where a button copies text, and use the macros of `parts.html.j2`.
Every value is escaped that is not `Markup`. No script runs but the one that sorts or copies: the page's
content security policy names its hash.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


def render_page(package: str, template: str, **values: Any) -> str:
    """Render a template of a package, such as "report.html.j2" of "dots_zoo.export.measure"."""
    return page_environment(package).get_template(template).render(values)


def page_environment(package: str) -> Environment:
    """Return the templates of a package and the ones all pages share; a value that is missing is an error."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("dots_zoo.drawing")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": data_uri,
        "drawn_width": drawn_width,
        "sha256": sha256,
        "sort_key": sort_key,
    }
    return environment


def data_uri(path: Path) -> str:
    """Return an SVG or PNG file as a URI that holds its bytes."""
    return f"data:{MEDIA_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def drawn_width(path: Path) -> int | None:
    """Return the width of a PNG file in the pixels of a page, 96 an inch; None where it names no inches."""
    if path.suffix != ".png":
        return None
    with Image.open(path) as picture:
        dpi = picture.info.get("dpi")
        return round(picture.width / dpi[0] * 96) if dpi else None


def sha256(text: str) -> str:
    """Return the digest of a script in base64, as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def sort_key(value: float | str) -> str:
    """Return a number as JavaScript reads it, and a text as it is."""
    return str(value).replace("inf", "Infinity") if isinstance(value, float) else str(value)
