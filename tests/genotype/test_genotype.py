import json
import pathlib
import re
import sys
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_zoo.genotype import (
    CellGenotype,
    Edge,
    Genotype,
    GenotypeError,
    bundled_names,
    load_genotype,
    primitives,
    save_genotype,
    to_text,
    validate,
)
from dots_zoo.ops import OPS
from dots_zoo.runtime.errors import DotsZooError

ARCHITECTURE = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"


def cell(*rows, concat=(2, 3, 4, 5)):
    return CellGenotype(tuple(Edge(*row) for row in rows), tuple(concat))


DOTS_IMAGENET = {
    "normal": cell(
        (2, 0, "dil_conv_5x5"),
        (2, 1, "skip_connect"),
        (3, 0, "skip_connect"),
        (3, 1, "sep_conv_3x3"),
        (4, 0, "sep_conv_3x3"),
        (4, 1, "sep_conv_3x3"),
        (5, 0, "sep_conv_3x3"),
        (5, 1, "sep_conv_5x5"),
    ),
    "reduce": cell(
        (2, 0, "sep_conv_5x5"),
        (2, 1, "sep_conv_3x3"),
        (3, 0, "sep_conv_3x3"),
        (3, 1, "sep_conv_5x5"),
        (4, 0, "max_pool_3x3"),
        (4, 3, "dil_conv_5x5"),
        (5, 0, "sep_conv_3x3"),
        (5, 1, "max_pool_3x3"),
    ),
}
DOTS_CIFAR10 = {
    "normal": cell(
        (2, 0, "skip_connect"),
        (2, 1, "sep_conv_3x3"),
        (3, 0, "sep_conv_3x3"),
        (3, 1, "sep_conv_3x3"),
        (4, 0, "sep_conv_3x3"),
        (4, 1, "sep_conv_3x3"),
        (5, 1, "skip_connect"),
        (5, 3, "dil_conv_3x3"),
    ),
    "reduce": cell(
        (2, 0, "sep_conv_3x3"),
        (2, 1, "sep_conv_3x3"),
        (3, 0, "max_pool_3x3"),
        (3, 1, "max_pool_3x3"),
        (4, 0, "max_pool_3x3"),
        (4, 3, "dil_conv_5x5"),
        (5, 0, "max_pool_3x3"),
        (5, 4, "dil_conv_5x5"),
    ),
}
# Node 3 of the normal cell is empty; the reduction cell lists an input 1 before an input 0, and keeps it so.
FAIR_DARTS_G = {
    "normal": cell(
        (2, 0, "sep_conv_3x3"),
        (2, 1, "sep_conv_3x3"),
        (4, 3, "skip_connect"),
        (4, 1, "sep_conv_5x5"),
        (5, 0, "dil_conv_3x3"),
        (5, 1, "sep_conv_3x3"),
    ),
    "reduce": cell(
        (2, 1, "avg_pool_3x3"),
        (2, 0, "skip_connect"),
        (3, 2, "skip_connect"),
        (3, 1, "max_pool_3x3"),
        (4, 3, "sep_conv_5x5"),
        (4, 0, "max_pool_3x3"),
        (5, 1, "dil_conv_3x3"),
        (5, 4, "dil_conv_3x3"),
    ),
}


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("dots_imagenet", DOTS_IMAGENET),
        ("dots_cifar10", DOTS_CIFAR10),
        ("fair_darts_cifar10_g", FAIR_DARTS_G),
    ],
)
def test_published_cells_edge_by_edge(name, cells):
    assert load_genotype(name).cells == cells


def test_the_107_published_cells():
    names = bundled_names()
    assert len(names) == 107 and list(names) == sorted(names)
    genotypes = [load_genotype(name) for name in names]
    assert [genotype.name for genotype in genotypes] == list(names)
    provenance = [genotype.provenance for genotype in genotypes]
    methods = [entry["method"] for entry in provenance]
    assert {method: methods.count(method) for method in methods} == {
        "darts": 2,
        "darts_minus": 33,
        "darts_pt": 28,
        "darts_pt_fixed_alpha": 28,
        "dots": 3,
        "dropnas": 1,
        "fair_darts": 7,
        "p_darts": 1,
        "pc_darts": 2,
        "sgas": 2,
    }
    datasets = [entry["dataset"] for entry in provenance]
    counts = {dataset: datasets.count(dataset) for dataset in datasets}
    assert counts == {"cifar10": 55, "cifar100": 33, "imagenet": 3, "svhn": 16}
    assert [name for name in names if not (re.search(r"_s[0-4]_", name))] == [
        name for name, entry in zip(names, provenance, strict=True) if "search_space" not in entry
    ]
    assert all(entry["origin"] and entry["paper"] for entry in provenance)
    edges = sum(len(genotype.cells[kind].edges) for genotype in genotypes for kind in ("normal", "reduce"))
    assert edges == 107 * 16 - 14  # FairDARTS: 4 + 6 + 6 + 8 + 6 + 6 + 6 edges in place of 7 * 8


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_files_are_what_save_genotype_writes(name, tmp_path):
    folder = pathlib.Path(load_genotype.__code__.co_filename).parent / "published"
    saved = save_genotype(load_genotype(name), tmp_path / "saved.json")
    assert saved.read_bytes() == (folder / f"{name}.json").read_bytes()


def test_a_bundled_cell_is_read_alone():
    opened, watching = [], ["open"]  # an audit hook cannot be taken off again, only left without events
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in watching else None)
    load_genotype("darts_v2")
    watching.clear()
    assert [pathlib.Path(path).name for path in opened if path.endswith(".json")] == ["darts_v2.json"]


def test_a_long_string_is_not_looked_up_as_a_file(monkeypatch):
    monkeypatch.setattr("os.path.isfile", lambda path: pytest.fail("looked up"))
    with pytest.raises(GenotypeError, match="the path of an existing file"):
        load_genotype("a" * 5000)


def test_every_operation_can_be_built():
    assert set(primitives("darts")) | set(primitives("nasbench201")) == set(OPS)


def test_nodes_and_edges_into_keep_the_published_order():
    reduce, normal = FAIR_DARTS_G["reduce"], FAIR_DARTS_G["normal"]
    assert normal.nodes == (2, 3, 4, 5)
    assert normal.edges_into(3) == ()
    assert [edge.input for edge in reduce.edges_into(2)] == [1, 0]
    assert load_genotype(ARCHITECTURE).cell.nodes == (1, 2, 3)
    assert cell((3, 0, "noise"), concat=[3]).nodes == (2, 3)  # node 2 exists, and is empty


def test_a_cell_of_the_other_space_is_missed_by_name():
    with pytest.raises(
        GenotypeError, match=r"genotype unnamed of space nasbench201: expected a cell 'normal', got"
    ):
        _ = load_genotype(ARCHITECTURE).normal
    with pytest.raises(GenotypeError, match=r"genotype darts_v2 of space darts: expected a cell 'cell', got"):
        _ = load_genotype("darts_v2").cell


# Where a source is looked for


def test_what_a_source_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genotype = load_genotype("darts_v2")
    assert load_genotype(genotype) is genotype
    saved = save_genotype(Genotype("mine", "darts", DOTS_CIFAR10), "darts_v1")
    assert saved == pathlib.Path("darts_v1")
    assert load_genotype("darts_v1").name == "darts_v1"  # a bundled name comes before a file
    assert load_genotype("./darts_v1").name == load_genotype(saved).name == "mine"
    pathlib.Path("as_text").write_text("\ufeff" + to_text(genotype), "utf-8")
    assert load_genotype("as_text") == Genotype("as_text", "darts", genotype.cells)
    pathlib.Path("nb201").write_text(ARCHITECTURE + "\n")
    assert load_genotype("nb201").cell == load_genotype(ARCHITECTURE).cell
    assert load_genotype(pathlib.Path("darts_v1").read_text()).name == "mine"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dots_imagnet", "expected the name of a bundled cell (close: dots_imagenet, "),
        ("runs/x/genotype.json", "the path of an existing file, or a text, got 'runs/x/genotype.json'"),
        ("", "got ''"),
        ("\0", "the path of an existing file"),
        ("a" * 5_000_000, "the path of an existing file"),
        ("\ud800", "the path of an existing file"),
        ("#" * 2_000_000, "text: expected at most 1000000 characters, got 2000000"),
        (3, "expected a Genotype, a name, a path or a text, got 3"),
        (b"darts_v2", "expected a Genotype, a name, a path or a text, got b'darts_v2'"),
        (pathlib.Path("missing.json"), "missing.json: expected an existing file, got 'nothing'"),
        (pathlib.Path("."), ".: expected an existing file, got 'a folder'"),
        (pathlib.Path("x" * 5000), "cannot be read: File name too long"),
    ],
)
def test_a_source_that_is_nothing(source, message):
    start = process_time()
    with pytest.raises(GenotypeError, match=re.escape(message)):
        load_genotype(source)
    assert process_time() - start < 1


def test_files_that_cannot_be_read_as_text(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(GenotypeError, match=r"x\.json: expected a text in UTF-8"):
        load_genotype(path)
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(GenotypeError, match=r"x\.json: expected a file of at most 1000000 bytes"):
        load_genotype(str(path))
    path.write_text("import os")
    with pytest.raises(GenotypeError, match=r"x\.json: expected one Genotype\(\.\.\.\), got 'import os'"):
        load_genotype(path)
    path.write_text("")
    with pytest.raises(GenotypeError, match=r"x\.json: expected one Genotype"):
        load_genotype(path)


# JSON, schema 1

EDGES = [[2, 0, "noise"], [2, 1, "none"]]
VALID = {
    "schema": 1,
    "name": "mine",
    "space": "darts",
    "normal": {"edges": EDGES, "concat": [2]},
    "reduce": {"edges": EDGES, "concat": [2]},
}


def changed(path, value):
    data = json.loads(json.dumps(VALID))
    *parents, last = path
    place = data
    for key in parents:
        place = place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return data


def test_provenance_may_be_missing():
    assert load_genotype(json.dumps(VALID)).provenance == {}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "text: expected 'schema': 1, got 2"),
        (["schema"], True, "text: expected 'schema': 1, got True"),
        (["schema"], "1", "text: expected 'schema': 1, got '1'"),
        (["space"], "nas", "text: expected 'space': darts or nasbench201, got 'nas'"),
        (["space"], ["darts"], "text: expected 'space': darts or nasbench201, got ['darts']"),
        (["name"], KeyError, "\"missing ['name'], unknown []\""),
        (["cell"], {}, "\"missing [], unknown ['cell']\""),
        (["name"], "", "text: expected a printable name of 1 to 100 characters, got ''"),
        (["name"], 3, "text: expected a printable name of 1 to 100 characters, got 3"),
        (["name"], "a\nb", "expected a printable name"),
        (["name"], "\ud800", "expected a printable name"),
        (["name"], "a" * 101, "expected a printable name"),
        (["provenance"], [], "text, provenance: expected a JSON object, got []"),
        (["normal"], [], "text: normal cell: expected an object with 'edges' and 'concat', got []"),
        (["reduce", "nodes"], 4, "text: reduce cell: expected the keys edges, concat, got"),
        (["normal", "edges"], {}, "text: normal cell, edges: expected a list, got {}"),
        (["normal", "edges"], [], "text: normal cell: expected 1 to 1024 edges, got 0"),
        (["normal", "edges"], EDGES * 513, "text: normal cell: expected 1 to 1024 edges, got 1026"),
        (
            ["normal", "edges", 1],
            [2, 1],
            "text: normal cell, edge 1: expected [node, input, operation], got [2, 1]",
        ),
        (
            ["normal", "edges", 1],
            "ab1",
            "text: normal cell, edge 1: expected [node, input, operation], got 'ab1'",
        ),
        (
            ["normal", "edges", 1, 0],
            1,
            "edge 1: expected [node, input, operation] with a node from 2 to 65, got [1, 1,",
        ),
        (["normal", "edges", 1, 0], 66, "with a node from 2 to 65, got [66, 1, 'none']"),
        (["normal", "edges", 1, 0], 2.0, "with a node from 2 to 65, got [2.0, 1, 'none']"),
        (["normal", "edges", 1, 0], True, "with a node from 2 to 65, got [True, 1, 'none']"),
        (
            ["reduce", "edges", 0, 1],
            2,
            "text: reduce cell, edge 0: expected an input from 0 to 1, a node before the",
        ),
        (
            ["reduce", "edges", 0, 1],
            -1,
            "expected an input from 0 to 1, a node before the edge's own, got [2, -1, 'noise']",
        ),
        (["reduce", "edges", 0, 1], False, "a node before the edge's own, got [2, False, 'noise']"),
        (
            ["reduce", "edges", 0, 2],
            "nor_conv_3x3",
            "edge 0: expected an operation of space darts (none, skip_connect,",
        ),
        (["reduce", "edges", 0, 2], ["none"], "noise), got [2, 0, ['none']]"),
        (
            ["reduce", "concat"],
            [],
            "text: reduce cell, concat: expected one or more of the nodes (2,), each once, got []",
        ),
        (["reduce", "concat"], [2, 2], "each once, got [2, 2]"),
        (["reduce", "concat"], [2, 3], "each once, got [2, 3]"),
        (["reduce", "concat"], [1], "each once, got [1]"),
        (["reduce", "concat"], [2.0], "each once, got [2.0]"),
        (["reduce", "concat"], [[2]], "each once, got [[2]]"),
        (["reduce", "concat"], 2, "text: reduce cell, concat: expected a list, got 2"),
    ],
)
def test_json_refusals_name_the_place(path, value, message):
    with pytest.raises(GenotypeError, match=re.escape(message)):
        load_genotype(json.dumps(changed(path, value)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "text: expected 'schema': 1, got []"),
        ('{"schema": 1, "schema": 1}', "text: expected JSON of schema 1, got: the key 'schema' twice"),
        ('{"schema": 1, "provenance": {"a": 1, "a": 2}}', "the key 'a' twice"),
        ('{"schema": 1, "x": NaN}', "NaN, which is no number in JSON"),
        ('{"schema": 1, "x": -Infinity}', "-Infinity, which is no number in JSON"),
        ('{"schema": 1, "x": 1e999}', "1e999, which is no number in JSON"),
        ('{"schema": 1,}', "text: expected JSON of schema 1, got: "),
        ('{"schema": 1', "text: expected JSON of schema 1, got: "),
        ('{"schema": 1} {}', "text: expected JSON of schema 1, got: Extra data"),
        ('{"schema": ' + "9" * 5000 + "}", "text: expected JSON of schema 1, got: Exceeds the limit"),
        ('{"schema": ' + "[" * 900_000, "nested too deeply"),
        (
            '{"schema": 1, ' + ", ".join(f'"k{i}": 0' for i in range(60_000)) + ', "k59999": 1}',
            "the key 'k59999' twice",
        ),
    ],
)
def test_texts_that_are_not_json_of_schema_1(text, message):
    start = process_time()
    with pytest.raises(GenotypeError, match=re.escape(message)):
        load_genotype(text)
    assert process_time() - start < 1


def test_nasbench201_is_exactly_its_six_edges():
    rows = [list(edge) for edge in zip((1, 2, 2, 3, 3, 3), (0, 0, 1, 0, 1, 2), ["none"] * 6, strict=True)]
    data = {"schema": 1, "name": "a", "space": "nasbench201", "cell": {"edges": rows, "concat": [3]}}
    assert to_text(load_genotype(json.dumps(data))) == "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    data["cell"] = {"edges": rows[1:2] + rows[:1] + rows[2:], "concat": [3]}
    with pytest.raises(
        GenotypeError, match=r"text: cell: expected \[node, input\] of its edges to be \(\(1, 0\), \(2, 0\)"
    ):
        load_genotype(json.dumps(data))
    data["cell"] = {"edges": rows[:5], "concat": [3]}
    with pytest.raises(GenotypeError, match=r"text: cell: expected \[node, input\] of its edges"):
        load_genotype(json.dumps(data))
    data["cell"] = {"edges": rows, "concat": [2, 3]}
    with pytest.raises(GenotypeError, match=r"text: cell, concat: expected one or more of the nodes \(3,\)"):
        load_genotype(json.dumps(data))


def test_a_genotype_built_by_a_program_is_checked_where_it_is_used(tmp_path):
    bad = Genotype("mine", "darts", {"normal": DOTS_IMAGENET["normal"], "reduce": cell((2, 2, "none"))})
    for use in (
        validate,
        load_genotype,
        to_text,
        lambda genotype: save_genotype(genotype, tmp_path / "x.json"),
    ):
        with pytest.raises(
            GenotypeError, match=r"genotype: reduce cell, edge 0: expected an input from 0 to 1"
        ):
            use(bad)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        GenotypeError, match=r"here: expected the cells of space darts \(normal, reduce\), got"
    ):
        validate(Genotype("mine", "darts", {"normal": DOTS_IMAGENET["normal"]}), "here")
    with pytest.raises(GenotypeError, match="here: expected space darts or nasbench201, got 'pc'"):
        validate(Genotype("mine", "pc", DOTS_IMAGENET), "here")


def test_two_edges_of_a_node_may_share_their_input():
    rows = [(2, 0, "sep_conv_3x3"), (2, 0, "sep_conv_3x3"), (2, 0, "skip_connect")]
    genotype = Genotype(
        "sum", "darts", {"normal": cell(*rows, concat=[2]), "reduce": DOTS_IMAGENET["reduce"]}
    )
    validate(genotype)
    assert load_genotype(to_text(genotype)).normal.edges == tuple(Edge(*row) for row in rows)


# Saving


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), 1j])
def test_provenance_has_to_be_json(tmp_path, value):
    with pytest.raises(GenotypeError, match="genotype mine, provenance: expected JSON values, got: "):
        save_genotype(Genotype("mine", "darts", DOTS_IMAGENET, {"x": [value]}), tmp_path / "x.json")
    endless = {}
    endless["x"] = endless
    with pytest.raises(GenotypeError, match="provenance: expected JSON values, got: Circular"):
        save_genotype(Genotype("mine", "darts", DOTS_IMAGENET, endless), tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_what_would_be_too_long_to_load_is_not_saved(tmp_path):
    genotype = Genotype("mine", "darts", DOTS_IMAGENET, {"x": "a" * 1_000_000})
    with pytest.raises(GenotypeError, match="genotype mine: expected at most 1000000 bytes as JSON"):
        save_genotype(genotype, tmp_path / "x.json")
    with pytest.raises(DotsZooError, match="cannot be written"):
        save_genotype(load_genotype("darts_v2"), tmp_path / "missing" / "x.json")
    assert not list(tmp_path.iterdir())


def test_a_saved_file_has_one_edge_a_line(tmp_path):
    text = save_genotype(load_genotype("dots_imagenet"), tmp_path / "x.json").read_text()
    assert text.startswith(
        '{\n  "schema": 1,\n  "name": "dots_imagenet",\n  "space": "darts",\n  "normal": {\n'
    )
    assert '\n      [5, 1, "sep_conv_5x5"]\n    ],\n    "concat": [2, 3, 4, 5]\n  },\n' in text
    assert len(re.findall(r"^ +\[\d, \d, \"\w+\"\],?$", text, re.M)) == 16


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
NAMES = st.text(min_size=1, max_size=100).filter(str.isprintable)


@st.composite
def darts_cells(draw):
    nodes = draw(st.lists(st.integers(2, 65), min_size=1, max_size=12))
    edges = tuple(
        Edge(node, draw(st.integers(0, node - 1)), draw(st.sampled_from(primitives("darts"))))
        for node in nodes
    )
    legal = CellGenotype(edges, ()).nodes
    return CellGenotype(edges, tuple(draw(st.lists(st.sampled_from(legal), min_size=1, unique=True))))


@st.composite
def genotypes(draw):
    name, provenance = draw(NAMES), draw(st.dictionaries(st.text(), JSON_VALUES, max_size=3))
    if draw(st.booleans()):
        cells = {"normal": draw(darts_cells()), "reduce": draw(darts_cells())}
        return Genotype(name, "darts", cells, provenance)
    ops = draw(st.lists(st.sampled_from(primitives("nasbench201")), min_size=6, max_size=6))
    pairs = zip((1, 2, 2, 3, 3, 3), (0, 0, 1, 0, 1, 2), ops, strict=True)
    return Genotype(name, "nasbench201", {"cell": cell(*pairs, concat=[3])}, provenance)


@given(genotypes())
@settings(deadline=None, max_examples=150)
def test_json_and_text_give_the_same_genotype_back(tmp_path_factory, genotype):
    folder = tmp_path_factory.mktemp("genotypes")
    path = save_genotype(genotype, folder / "a.json")
    again = load_genotype(path)
    assert again == genotype and again.provenance == genotype.provenance
    assert save_genotype(again, folder / "b.json").read_bytes() == path.read_bytes()
    assert load_genotype(path.read_text()) == genotype
    assert load_genotype(to_text(genotype)).cells == genotype.cells


@given(
    st.lists(st.sampled_from(["schema", "name", "space", "normal", "edges", "concat", 0, 1, 2]), max_size=4),
    JSON_VALUES,
)
@settings(deadline=None, max_examples=200)
def test_a_json_value_anywhere_is_refused_or_harmless(path, value):
    data = json.loads(json.dumps(VALID))
    place = data
    for key in path:
        if isinstance(place, dict) and key in place or isinstance(place, list) and key in range(len(place)):
            parent, last, place = place, key, place[key]
    if path and place is not data:
        parent[last] = value
    try:
        validate(load_genotype(json.dumps(data)))
    except GenotypeError as error:
        assert str(error).startswith("text")
