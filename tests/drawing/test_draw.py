import builtins
import itertools
import random
import re
import struct
import sys
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from dots_zoo.drawing.draw import draw
from dots_zoo.drawing.layout import END_WIDTH, Box, lay_out
from dots_zoo.drawing.render import draw_figure
from dots_zoo.genotype import (
    OPS,
    CellGenotype,
    Edge,
    Genotype,
    GenotypeError,
    bundled_names,
    load_genotype,
    primitives,
)
from dots_zoo.runtime.errors import DotsZooError
from helpers.paths import ROOT

TITLES = {operation.title for operation in OPS.values()}
NASBENCH201 = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def random_cell(seed, nodes, edges):
    """`edges` edges into each node, parallel ones among them, every operation in turn."""
    rng = random.Random(seed)
    ops = itertools.cycle(primitives("darts"))
    rows = [Edge(node, rng.randrange(node), next(ops)) for node in range(2, 2 + nodes) for _ in range(edges)]
    return CellGenotype(tuple(rows), tuple(range(2, 2 + nodes, 2)))


def genotype_of(cell, name="mine"):
    return Genotype(name, "darts", {"normal": cell, "reduce": cell})


DENSE = random_cell(0, 4, 8)
CHAIN = CellGenotype(tuple(Edge(node, node - 1, "sep_conv_7x7") for node in range(2, 66)), (65,))
CELLS = [cell for name in bundled_names() for cell in load_genotype(name).cells.values()]
CELLS += [load_genotype(NASBENCH201).cell, DENSE, CHAIN]
CELLS += [
    random_cell(seed, nodes, edges) for seed, nodes, edges in [(1, 1, 1), (2, 6, 1), (3, 8, 3), (4, 3, 12)]
]


def overlap(one, other):
    return (
        one.left < other.right
        and other.left < one.right
        and one.top < other.bottom
        and other.top < one.bottom
    )


def lines(cell, layout):
    """Every straight stretch as (box, what it may touch): it belongs to an edge, or leads to the output."""
    for node in cell.concat:
        box = layout.boxes[node]
        yield Box(box.right, box.middle[1], layout.output.left, box.middle[1])
    for edge, label, (x, y) in zip(cell.edges, layout.labels, layout.starts, strict=True):
        row = label.middle[1]
        yield Box(label.right, row, layout.boxes[edge.node].left, row)
        if edge.input >= cell.nodes[0]:
            yield Box(x, y, x, row)
            yield Box(x, row, label.left, row)


def test_no_label_box_or_line_meets_another():
    for cell in CELLS:
        layout = lay_out(cell)
        parts = [*layout.boxes.values(), layout.output, *layout.labels]
        assert not any(overlap(one, other) for one, other in itertools.combinations(parts, 2))
        for line in lines(cell, layout):
            assert line.left < line.right or line.top < line.bottom
            assert not any(overlap(line, part) for part in parts)


def test_curves_from_the_inputs_have_a_lane_of_their_own():
    for cell in CELLS:
        layout = lay_out(cell)
        inputs = range(cell.nodes[0])
        begin = min(label.left for label in layout.labels)
        node_boxes = [box for node, box in layout.boxes.items() if node not in inputs]
        assert all(part.left >= begin for part in [*node_boxes, *layout.labels]) and begin > END_WIDTH
        assert {layout.boxes[node].right for node in inputs} == {END_WIDTH}
        lefts = {
            label.left for edge, label in zip(cell.edges, layout.labels, strict=True) if edge.input in inputs
        }
        assert len(lefts) <= 1


def test_edges_of_one_pair_are_apart_and_lines_of_one_box_do_not_cross():
    layout = lay_out(
        CellGenotype((Edge(2, 0, "noise"), Edge(2, 0, "noise"), Edge(3, 2, "none"), Edge(3, 2, "none")), (3,))
    )
    rows = [label.middle[1] for label in layout.labels]
    assert rows == sorted(rows) and len(set(rows)) == 4
    (_, first), (_, second), (third, _), (fourth, _) = layout.starts
    assert first < second  # from the side: the upper port goes to the upper row
    assert third > fourth  # from the bottom: the right port turns off first


def test_the_order_of_publication_does_not_cross_lines():
    edges = [Edge(4, 2, "skip_connect"), Edge(3, 2, "noise"), Edge(3, 0, "noise"), Edge(2, 0, "none")]
    layout = lay_out(CellGenotype(tuple(edges), (4,)))
    (far, _), (near, _), (_, lower), (_, upper) = layout.starts
    assert far < near and upper < lower


def test_boxes_have_room():
    layout = lay_out(load_genotype("fair_darts_cifar10_a").normal)
    for box in layout.boxes.values():
        assert box.bottom - box.top > 0.239 and box.right - box.left > 0.35
    layout = lay_out(DENSE)
    ports = sorted(x for edge, (x, _) in zip(DENSE.edges, layout.starts, strict=True) if edge.input == 2)
    assert len(ports) > 5 and min(b - a for a, b in itertools.pairwise(ports)) > 0.099


def test_every_label_fits_its_box():
    canvas = FigureCanvasAgg(draw_figure(genotype_of(DENSE)))
    [page, *cells] = canvas.figure.axes
    for axes, layout in zip(cells, [lay_out(DENSE)] * 2, strict=True):
        texts = [text for text in axes.findobj(Text) if text.get_text() in TITLES]
        assert {text.get_text() for text in texts} == {OPS[op].title for op in primitives("darts")}
        for text, label in zip(texts, layout.labels, strict=True):
            extent = text.get_window_extent(canvas.get_renderer()).transformed(axes.transData.inverted())
            assert label.left < extent.x0 < extent.x1 < label.right
            assert label.top < min(extent.y0, extent.y1) < max(extent.y0, extent.y1) < label.bottom


def svg_texts(path):
    return [
        "".join(text.itertext()).strip()
        for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    ]


@pytest.mark.parametrize("name", ["dots_imagenet", "fair_darts_cifar10_a", NASBENCH201])
def test_svg_says_what_it_shows(tmp_path, name):
    genotype = load_genotype(name)
    path = draw(genotype, tmp_path / "cell.svg")
    texts = svg_texts(path)
    ops = [edge.op for cell in genotype.cells.values() for edge in cell.edges]
    assert [text for text in texts if text in TITLES] == [OPS[op].title for op in ops]
    assert genotype.name in texts
    if genotype.space == "darts":
        assert {"normal cell", "reduction cell (stride 2 from its inputs)"} < set(texts)
        assert f"{genotype.provenance['paper']} · {genotype.provenance['dataset']}" in texts
    dashed = path.read_text("utf-8").count("stroke-dasharray")
    assert dashed == sum(not cell.edges_into(node) for cell in genotype.cells.values() for node in cell.nodes)


def test_the_picture_in_the_documentation_is_of_the_published_cell(tmp_path):
    documented = ROOT / "docs" / "dots_imagenet.svg"
    assert svg_texts(documented) == svg_texts(draw(load_genotype("dots_imagenet"), tmp_path / "cell.svg"))


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_same_bytes_whatever_the_settings(tmp_path, suffix):
    genotype = load_genotype("darts_v2")
    first = draw(genotype, tmp_path / f"a{suffix}").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "font.family": "serif", "savefig.bbox": "tight"}):
        assert draw(genotype, str(tmp_path / f"b{suffix}")).read_bytes() == first
        assert matplotlib.rcParams["font.size"] == 30
    assert not re.search(rb"20\d\d-\d\d-\d\d|matplotlib v", first.replace(b"2021", b""))


def test_png_sizes(tmp_path):
    path = draw(load_genotype("dots_imagenet"), tmp_path / "cell.PNG")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert 2000 < struct.unpack(">I", path.read_bytes()[16:20])[0] < 3000  # 200 dpi
    path = draw(genotype_of(CHAIN), path)
    assert struct.unpack(">I", path.read_bytes()[16:20])[0] == 8000


@pytest.mark.parametrize("name", ["$x^2$", "<b>&amp;</b>", "名前 🦆", "W" * 100])
def test_any_name_is_drawn_as_it_is_and_fits(tmp_path, name):
    genotype = Genotype(name, "darts", load_genotype("darts_v2").cells, {"paper": "a\x00b", "dataset": name})
    texts = svg_texts(draw(genotype, tmp_path / "cell.svg"))
    assert texts[:2] == [name, name]
    if name.isascii():
        canvas = FigureCanvasAgg(draw_figure(genotype))
        page = canvas.figure.axes[0]
        for text in page.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() == name):
            assert text.get_window_extent(canvas.get_renderer()).x1 < page.bbox.x1


def test_refusals_write_nothing(tmp_path, monkeypatch):
    genotype = load_genotype("darts_v2")
    for name in ("cell.pdf", "cell", ".svg"):
        with pytest.raises(
            DotsZooError, match=rf"expected a file name that ends in \.svg or \.png, got '{name}'"
        ):
            draw(genotype, tmp_path / name)
    with pytest.raises(GenotypeError, match=r"genotype: normal cell: expected 1 to 1024 edges, got 0"):
        draw(genotype_of(CellGenotype((), (2,))), tmp_path / "cell.svg")
    with pytest.raises(DotsZooError, match="cannot be written"):
        draw(genotype, tmp_path / "missing" / "cell.svg")
    real_import = builtins.__import__

    def without_matplotlib(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *rest)

    monkeypatch.delitem(sys.modules, "dots_zoo.drawing.render")
    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(
        DotsZooError, match=r"drawing needs matplotlib .*: pip install \"dots-zoo\[search\]\""
    ):
        draw(genotype, tmp_path / "cell.svg")
    assert not list(tmp_path.iterdir())
