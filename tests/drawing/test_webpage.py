"""Pages hold nothing from outside, and text stays text."""

import base64
import hashlib
import re
from pathlib import Path

from dots_zoo.drawing import html as webpage

HOSTILE = "</title><script>alert(1)</script>"


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "p.svg"
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    body = (
        webpage.table([HOSTILE], [[HOSTILE]])
        + webpage.facts([(HOSTILE, HOSTILE)])
        + webpage.picture(path, HOSTILE)
    )
    assert "<script" not in webpage.document(HOSTILE, body)


def test_marked_rows_stand_out() -> None:
    html = webpage.table(["a"], [["one"], ["two"]], [False, True])
    assert html.count('class="marked"') == 1 and '<tr class="marked"><td>two' in html


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"png")
    assert 'src="data:image/png;base64,cG5n"' in webpage.picture(path, "a picture")


def test_a_sortable_table_has_keys_buttons_and_its_script_by_hash() -> None:
    table = webpage.sortable_table(
        [HOSTILE, "b"], [[(HOSTILE, HOSTILE), ("-", float("inf"))]], [True], wide=1
    )
    assert 'data-key="Infinity"' in table and table.count('<button type="button">') == 2
    assert '<tr class="marked">' in table and table.count('class="wide"') == 2 and "<script" not in table
    page = webpage.document("t", table, sortable=True)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "script" not in webpage.document("t", "b").replace("default-src", "")
