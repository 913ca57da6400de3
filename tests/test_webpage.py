"""Pages hold nothing from outside, and text stays text."""

from pathlib import Path

from dots_zoo import webpage

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
