"""Pages load nothing from outside, and text stays text."""

import base64
import hashlib
import re
import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import escape
from PIL import Image

from dots_zoo.drawing.html import page_environment
from helpers.paths import ROOT

HOSTILE = "</title><script>alert('1')</script>\" onload=1 &amp;"
PACKAGE = "dots_zoo.drawing"


def rendered(body: str, base: str = "page.html.j2", title: str = "t", **values: object) -> str:
    """Return a page of the shared templates around `body`."""
    template = (
        f'{{% extends "{base}" %}}{{% import "parts.html.j2" as parts %}}'
        f"{{% block title %}}{{{{ title }}}}{{% endblock %}}{{% block body %}}{body}{{% endblock %}}"
    )
    return page_environment(PACKAGE).from_string(template).render(title=title, **values)


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "p.svg"
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = rendered(
        "{{ parts.table([text], [[text]]) }}{{ parts.facts([(text, text)]) }}{{ parts.image(path, text) }}"
        "{{ parts.sortable_table([text], [[(text, text)]], 0) }}{{ text }}",
        title=HOSTILE,
        text=HOSTILE,
        path=path,
    )
    assert page.count("&lt;script&gt;") == 2 + 2 + 2 + 2 + 3 + 1
    assert "<script" not in page and '" onload' not in page


def test_marked_rows_stand_out() -> None:
    page = rendered('{{ parts.table(["a"], [["one"], ["two"]], [false, true]) }}')
    assert page.count('class="marked"') == 1 and '<tr class="marked"><td>two' in page
    assert "wide" not in page.partition("</style>")[2]
    wide = rendered('{{ parts.table(["a", "b"], [["one", "two"]], wide=1) }}')
    assert '<td>one</td><td class="wide">two</td>' in wide and '<th class="wide">b</th>' in wide


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (300, 150)).save(path, dpi=(144, 144))
    page = rendered('{{ parts.image(path, "a picture", scroll=true) }}', path=path)
    data = base64.b64encode(path.read_bytes()).decode()
    assert f'src="data:image/png;base64,{data}"' in page and '<figure class="scroll">' in page
    assert 'width="200"' in page  # 300 pixels at 144 an inch, of which a page shows 96


def test_text_is_copied_by_a_button_whose_script_the_policy_names() -> None:
    page = rendered("{{ parts.copied(text) }}", "copying_page.html.j2", text=HOSTILE)
    assert page.count('class="copy"') == 1 and f"<pre>{escape(HOSTILE)}</pre>" in page
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "clipboard.writeText" in script and f"script-src 'sha256-{digest}'" in page


def test_a_sortable_table_has_keys_buttons_and_its_script_by_hash() -> None:
    body = '{{ parts.sortable_table(["a", "b"], rows, 1, [true]) }}'
    rows = [[("one", 1), ("-", float("inf"))]]
    page = rendered(body, "sortable_page.html.j2", rows=rows)
    assert 'data-key="Infinity"' in page and page.count('<button type="button">') == 2
    assert '<tr class="marked">' in page and page.count('class="wide"') == 2
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert 'document.querySelectorAll("th button")' in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "script" not in rendered(body, rows=rows).replace("default-src", "")


def test_a_value_that_a_page_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        rendered("{{ missing }}")


def test_the_wheel_holds_every_template() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folders = [
        path
        for root in ("dots_zoo", "search", "export")
        for path in (ROOT / root).rglob("templates")
        if any(path.iterdir())
    ]
    assert len(folders) >= 5
    for folder in folders:
        parts = folder.parent.relative_to(ROOT).parts
        package = ".".join(parts if parts[0] == "dots_zoo" else ("dots_zoo", *parts))
        shipped = {path for pattern in listed.get(package, []) for path in folder.parent.glob(pattern)}
        assert set(folder.iterdir()) <= shipped, package
