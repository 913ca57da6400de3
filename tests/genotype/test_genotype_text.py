import ast
import os
import pathlib
import re
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dots_zoo.genotype import CellGenotype, Edge, Genotype, GenotypeError, load_genotype, to_text, validate
from dots_zoo.genotype import text_forms as genotype_text

DARTS_V2 = """
# second order
DARTS_V2 = Genotype(
  normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),  # it's (two)
          ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)],
  normal_concat=[2, 3, 4, 5],
  reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),
          ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],
  reduce_concat=[2, 3, 4, 5])
"""
DROPNAS = """Genotype(
    normal=[[('sep_conv_3x3', 1), ('skip_connect', 0)], [('sep_conv_3x3', 1), ('sep_conv_3x3', 0)],
            [('sep_conv_3x3', 1), ('sep_conv_3x3', 0)], [('dil_conv_5x5', 4), ('dil_conv_3x3', 1)]],
    normal_concat=range(2, 6),
    reduce=[[('max_pool_3x3', 0), ('sep_conv_5x5', 1)], [('dil_conv_5x5', 2), ('sep_conv_5x5', 1)],
            [('dil_conv_5x5', 3), ('dil_conv_5x5', 2)], [('dil_conv_5x5', 3), ('dil_conv_5x5', 4)]],
    reduce_concat=range(2, 6)
)"""
FAIR_DARTS_A = """FairDARTS_a = Genotype(
    normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0), ('sep_conv_3x3', 5, 0)],
    normal_concat=range(2, 6),
    reduce=[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1),
            ('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), ('skip_connect', 5, 1)],
    reduce_concat=range(2, 6))"""
AMOEBANET_REDUCE = """[
    ('max_pool_3x3', 0), ('sep_conv_3x3', 1), ('max_pool_3x3', 0), ('sep_conv_7x7', 2), ('sep_conv_7x7', 0),
    ('avg_pool_3x3', 1), ('max_pool_3x3', 0), ('max_pool_3x3', 1), ('conv_7x1_1x7', 0), ('sep_conv_3x3', 5),
]"""
PAIRS = "[('skip_connect', 0), ('noise', 1)]"

LITERALS = "expected one Genotype(...) of strings, integers, lists, tuples and range"


def form(normal=PAIRS, normal_concat="[2]"):
    return (
        f"Genotype(normal={normal}, normal_concat={normal_concat}, reduce={PAIRS}, reduce_concat=range(2, 3))"
    )


@pytest.mark.parametrize(
    ("text", "bundled", "name"),
    [
        (DARTS_V2, "darts_v2", "DARTS_V2"),
        (DROPNAS, "dropnas_cifar10", "unnamed"),
        (FAIR_DARTS_A, "fair_darts_cifar10_a", "FairDARTS_a"),
    ],
)
def test_the_public_texts_are_the_bundled_cells(text, bundled, name):
    genotype = load_genotype(text)
    assert genotype.cells == load_genotype(bundled).cells
    assert (genotype.name, genotype.space) == (name, "darts")


def test_the_flat_form_is_written_as_published():
    published = re.sub(r"#.*", "", DARTS_V2).split("=", 1)[1].replace("[2, 3, 4, 5]", "range(2, 6)")
    assert re.sub(r"\s", "", to_text(load_genotype("darts_v2"))) == re.sub(r"\s", "", published)


def test_a_cell_that_is_not_flat_makes_triples_of_both():
    assert re.sub(r"\s", "", to_text(load_genotype("fair_darts_cifar10_a"))) == re.sub(
        r"\s", "", FAIR_DARTS_A.split("=", 1)[1]
    )


def test_pairs_out_of_node_order_are_written_as_triples():
    flipped = CellGenotype(
        (Edge(3, 2, "noise"), Edge(3, 0, "noise"), Edge(2, 0, "none"), Edge(2, 1, "none")), (3, 2)
    )
    text = to_text(Genotype("x", "darts", {"normal": flipped, "reduce": flipped}))
    assert text.startswith(
        "Genotype(normal=[('noise', 3, 2), ('noise', 3, 0), ('none', 2, 0), ('none', 2, 1)], "
    )
    assert "normal_concat=[3, 2]" in text
    assert load_genotype(text).normal == flipped


@pytest.mark.parametrize(
    "text",
    [
        f"Genotype({PAIRS}, [2], {PAIRS}, range(2, 3))",
        f"Genotype({PAIRS}, (2,), reduce_concat=(2,), reduce={PAIRS},)",
        f"{{'normal': {PAIRS}, 'normal_concat': [2], 'reduce': {PAIRS}, 'reduce_concat': [2],}}",
        f'{{"reduce": {PAIRS}, "normal_concat": [2], "normal": {PAIRS}, "reduce_concat": range(2, 3)}}',
        f"x={{'normal': {PAIRS}, 'normal_concat': [2], 'reduce': {PAIRS}, 'reduce_concat': [2]}}",
        form("[['skip_connect', 0], ['noise', 1]]"),
        form("(('skip_connect', 0), ('noise', 1))"),
        form("[[('skip_connect', 0), ('noise', 1)]]"),
        form("([['skip_connect', 0], ('noise', 1)],)"),
        form("[('skip_connect', 2, 0), ('noise', 2, 1)]"),
        form().replace(", ", ",# a\r# b\r"),
        "\n\t  " + form().replace(", ", ",\r\n\t") + "  # done",
    ],
)
def test_one_genotype_in_many_words(text):
    expected = CellGenotype((Edge(2, 0, "skip_connect"), Edge(2, 1, "noise")), (2,))
    assert load_genotype(text).cells == {"normal": expected, "reduce": expected}


def test_nodes_of_any_size_are_counted_by_the_form():
    nested = load_genotype(form("[[('noise', 1)], [], [('none', 0), ('none', 3), ('none', 0)]]", "[2, 4]"))
    assert [(edge.node, edge.input) for edge in nested.normal.edges] == [(2, 1), (4, 0), (4, 3), (4, 0)]
    flat = load_genotype(form(AMOEBANET_REDUCE, "[3, 4, 6]"))
    assert flat.normal.nodes == (2, 3, 4, 5, 6) and flat.normal.concat == (3, 4, 6)
    assert flat.normal.edges[-2:] == (Edge(6, 0, "conv_7x1_1x7"), Edge(6, 5, "sep_conv_3x3"))


def test_architecture_string():
    text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    genotype = load_genotype(f" {text}\n")
    assert [(edge.node, edge.input, edge.op) for edge in genotype.cell.edges] == [
        (1, 0, "nor_conv_3x3"),
        (2, 0, "none"),
        (2, 1, "avg_pool_3x3"),
        (3, 0, "skip_connect"),
        (3, 1, "nor_conv_1x1"),
        (3, 2, "nor_conv_3x3"),
    ]
    assert genotype.cell.concat == (3,)
    assert to_text(genotype) == text


REFUSED = [
    # edges
    (
        form("[('foo', 0), ('noise', 1)]"),
        "text: normal cell, edge 0: expected an operation of space darts (none, skip",
    ),
    (
        form("[('noise', 0), ('noise', 2)]"),
        "text: normal cell, edge 1: expected an input from 0 to 1, a node before",
    ),
    (
        form("[('noise', -1), ('noise', 0)]"),
        "text: normal cell, edge 0: expected ('operation', input), got \"('noise', -1)\"",
    ),
    (
        form("[('noise', True), ('noise', 0)]"),
        "edge 0: expected ('operation', input), got \"('noise', True)\"",
    ),
    (form("[('noise', 1.5), ('noise', 0)]"), "edge 0: expected ('operation', input), got \"('noise', 1.5)\""),
    (form("[('noise', '1'), ('noise', 0)]"), "edge 0: expected ('operation', input), got \"('noise', '1')\""),
    (
        form("[('noise', None), ('noise', 0)]"),
        "edge 0: expected ('operation', input), got \"('noise', None)\"",
    ),
    (form("[(0, 'noise'), (1, 'noise')]"), "edge 0: expected ('operation', input), got \"(0, 'noise')\""),
    (form("[(noise, 0), ('noise', 0)]"), "edge 0: expected ('operation', input), got '(noise, 0)'"),
    (form("[('noise', 0, 0, 0)]"), "edge 0: expected ('operation', input), got"),
    (
        form("[('noise', 2, 0), ('noise', 1)]"),
        "edge 1: expected ('operation', node, input), got \"('noise', 1)\"",
    ),
    (
        form("[('noise', 1), ('noise', 2, 0)]"),
        "edge 1: expected ('operation', input), got \"('noise', 2, 0)\"",
    ),
    (
        form("[('noise', 0)]"),
        "text: normal cell: expected an even number of ('operation', input), two per node, got 1",
    ),
    (form("[]"), "text: normal cell: expected 1 to 1024 edges, got 0"),
    (form("[[], []]"), "text: normal cell: expected 1 to 1024 edges, got 0"),
    (
        form("[[('noise', 0)], ('noise', 1)]"),
        "text: normal cell, edge 1: expected ('operation', input), got \"'noise'\"",
    ),
    (
        form("[[('noise', 0)], 7]"),
        "text: normal cell, node 3: expected a list of ('operation', input), got '7'",
    ),
    (
        form("[[[('noise', 0)]]]"),
        "text: normal cell, edge 0: expected ('operation', input), got \"[('noise', 0)]\"",
    ),
    (form("'noise'"), "text: normal cell: expected a list of edges, got \"'noise'\""),
    (form("{('noise', 0), ('noise', 1)}"), "text: normal cell: expected a list of edges, got"),
    (form("[" + "('noise', 0)," * 2000 + "]"), "text: normal cell: expected 1 to 1024 edges, got 2000"),
    (
        form("[" + "('noise', 0)," * 200 + "]"),
        "text: normal cell, edge 128: expected [node, input, operation] with a node",
    ),
    # concat
    (
        form(normal_concat="[]"),
        "text: normal cell, concat: expected one or more of the nodes (2,), each once, got []",
    ),
    (form(normal_concat="range(6)"), "each once, got [0, 1, 2, 3, 4, 5]"),
    (form(normal_concat="range(3, 2)"), "each once, got []"),
    (form(normal_concat="2"), "text: normal cell, concat: expected a list of nodes or range(a, b), got '2'"),
    (form(normal_concat="[2, x]"), "text: normal cell, concat: expected integers, got '[2, x]'"),
    (form(normal_concat="[True]"), "text: normal cell, concat: expected integers, got '[True]'"),
    (
        form(normal_concat="range(0, 999999999)"),
        "concat: expected a range of at most 64 nodes, got 'range(0, 999999999)'",
    ),
    (form(normal_concat="range(" + "9" * 4000 + ")"), "concat: expected a range of at most 64 nodes, got"),
    (
        form(normal_concat="range(10**9)"),
        "concat: expected range(a, b) of two integers, got 'range(10 ** 9)'",
    ),
    (form(normal_concat="range(9**9**9**9**9)"), "concat: expected range(a, b) of two integers, got"),
    (
        form(normal_concat="range(2, 3, 1)"),
        "concat: expected range(a, b) of two integers, got 'range(2, 3, 1)'",
    ),
    (form(normal_concat="range(start=2, stop=3)"), "concat: expected range(a, b) of two integers, got"),
    (
        form(normal_concat="range(True, 3)"),
        "concat: expected range(a, b) of two integers, got 'range(True, 3)'",
    ),
    (form(normal_concat="range(2, stop=6)"), "concat: expected range(a, b) of two integers, got"),
    (form(normal_concat="range()"), "concat: expected range(a, b) of two integers, got 'range()'"),
    (
        form(normal_concat="list(range(2, 3))"),
        "concat: expected a list of nodes or range(a, b), got 'list(range(2, 3))'",
    ),
    # fields
    ("Genotype()", "text: expected each of normal, normal_concat, reduce, reduce_concat once, got []"),
    (
        "Genotype(1, 2, 3, 4, 5)",
        "once, got ['normal', 'normal_concat', 'reduce', 'reduce_concat', 'one too many']",
    ),
    ("Genotype(**{})", "once, got [None]"),
    ("Genotype(*[1, 2, 3, 4])", "once, got ['normal']"),
    (
        form().replace("reduce=", "normal="),
        "once, got ['normal', 'normal_concat', 'normal', 'reduce_concat']",
    ),
    (form().replace("reduce=", "cell="), "once, got ['normal', 'normal_concat', 'cell', 'reduce_concat']"),
    ("{**Genotype, 'normal_concat': 1}", "once, got [None, 'normal_concat']"),
    ("{1: 2, 'normal_concat': 1}", "once, got [1, 'normal_concat']"),
    # one expression, nothing else
    (form() + "\nimport os", "text: expected one Genotype(...), got no Python literal: invalid syntax"),
    ("import os;" + form(), 'text: expected one Genotype(...), got "import os;'),
    (form() + ";" + form(), "text: expected one Genotype(...), got"),
    ("x = y = " + form(), "text: expected one Genotype(...), got"),
    ("x.y = " + form(), "text: expected one Genotype(...), got"),
    ("x: int = " + form(), "text: expected one Genotype(...), got"),
    ("(x := " + form() + ")", "text: expected Genotype(normal=...) or a dict literal of its fields, got"),
    (
        "[" + form() + "][0]",
        f"text, line 1: {LITERALS}",
    ),
    ("genotypes." + form(), "text: expected Genotype(normal=...) or a dict literal of its fields, got"),
    (form() + ".normal", "text: expected Genotype(normal=...) or a dict literal of its fields, got"),
    (
        form() + "\0",
        "text: expected one Genotype(...), got no Python literal: source code string cannot contain null",
    ),
    (form("[('noise\ud800', 0)]"), "text: expected one Genotype(...), got no Python literal: 'utf-8' codec"),
    (
        form(normal_concat="[" + "9" * 5000 + "]"),
        "text: expected one Genotype(...), got no Python literal: Exceeds the",
    ),
    ("Genotype(", "text: expected one Genotype(...), got no Python literal: '(' was never closed"),
    # tokens that no form has
    (form("[f'{1}']"), f"text, line 1: {LITERALS}, got \"f'{{1}}'"),
    (form("[b'noise']"), "got \"b'noise'"),
    (form("[('noi' 'se', 0)]"), "got \"'noi''se', 0)"),
    (form("['''noise''']"), "got \"'''noise'''"),
    (form("[('\\x6eoise', 0)]"), f"text, line 1: {LITERALS}"),
    (form("\\\n[]"), f"text, line 1: {LITERALS}"),
    (form("['noise, 0]"), f"text, line 1: {LITERALS}"),
    (form("\n\n[0x10]"), f'text, line 3: {LITERALS}, got "[0x10], normal'),
    (form("[1_0]"), "[1_0], normal"),
    (form("[1if 1else 2]"), "got '[1if"),
    (form("[1.else]"), "[1.else], normal"),
    (form("[٣]"), "[٣], normal"),
    # work for a parser
    ("Genotype(" + "-" * 60_000 + "1)", f"text, line 1: {LITERALS}"),
    ("Genotype(" + "not " * 15_000 + "1)", f"text, line 1: {LITERALS}"),
    ("Genotype(" + "lambda:" * 9_000 + "1)", f"text, line 1: {LITERALS}"),
    ("Genotype(" + "1+" * 30_000 + "1)", f"text, line 1: {LITERALS}"),
    ("Genotype(x" + ".x" * 30_000 + ")", f"text, line 1: {LITERALS}"),
    ("Genotype" + "()" * 30_000, f"text, line 1: {LITERALS}"),
    ("Genotype(x" + "[0]" * 20_000 + ")", f"text, line 1: {LITERALS}"),
    ("Genotype(" + "[" * 60_000, f"text, line 1: {LITERALS}"),
    ("Genotype(" + "[" * 30_000 + "]" * 30_000 + ")", f"text, line 1: {LITERALS}"),
    ("Genotype(" * 7_000, f"text, line 1: {LITERALS}"),
    ("Genotype(" + "{1:" * 20_000, f"text, line 1: {LITERALS}"),
    ("Genotype(" + "'" * 60_000, f"text, line 1: {LITERALS}"),
    (
        "Genotype(" + "0," * 30_000 + ")",
        "text: expected each of normal, normal_concat, reduce, reduce_concat once",
    ),
    ("Genotype(" + " " * 900_000, "text: expected a text form of at most 65536 characters, got 900009"),
    # architecture strings
    (
        "|skip_connect~0|+|skip_connect~0|noise~1|+|none~0|none~1|none~2|",
        "text: cell, edge 2: expected an operation of",
    ),
    (
        "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|",
        "text: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got",
    ),
    ("|none~0|+|none~0|none~1|", "text: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got"),
    ("|" * 900_000, "text: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got"),
    ("|none~0" * 100_000, "text: expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(text, message):
    start = process_time()
    with pytest.raises(GenotypeError, match=re.escape(message)) as caught:
        load_genotype(text)
    assert process_time() - start < 1
    assert len(str(caught.value)) < 700


RUNS = [
    "open({marker!r}, 'w')",
    "open({marker!r}, 'w').write('x')",
    "__import__('pathlib').Path({marker!r}).touch()",
    "__import__('os').system('touch {marker}')",
    "eval('open({marker}, 1)')",
    "exec('import os')",
    "[open({marker!r}, 'w') for _ in range(1)]",
    "(lambda: open({marker!r}, 'w'))()",
    "(x := open({marker!r}, 'w'))",
    "[*open({marker!r}, 'w')]",
    "{{**open({marker!r}, 'w')}}",
    "open({marker!r}, 'w') if 1 else 2",
    "1 + open({marker!r}, 'w')",
    "f'{{open({marker!r}, 1)}}'",
    "().__class__.__base__.__subclasses__()",
    "range(open({marker!r}, 'w'))",
    "(yield)",
    "...",
]


@pytest.mark.parametrize("template", RUNS)
def test_nothing_runs(template, tmp_path):
    marker = tmp_path / "marker"
    code = template.format(marker=str(marker))
    places = [
        code,
        f"x = {code}",
        form(code),
        form(f"[({code}, 0), ('noise', 1)]"),
        form(f"[('noise', {code}), ('noise', 1)]"),
        form(f"[[('noise', {code})]]"),
        form(normal_concat=code),
        form(normal_concat=f"[{code}]"),
        form(normal_concat=f"range({code})"),
        form().replace("Genotype", code, 1),
        form().replace("normal=", f"normal_concat={code}, normal=", 1),
        f"{{{code}: 1, 'normal_concat': {code}}}",
        f"{form()} or {code}",
    ]
    for text in places:
        with pytest.raises(GenotypeError):
            load_genotype(text)
    assert not marker.exists()


def test_the_module_has_no_way_to_run_anything():
    tree = ast.parse(pathlib.Path(genotype_text.__file__).read_text("utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "literal_eval", "__import__", "getattr", "open"}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"ast", "re"}


PIECES = st.sampled_from(
    [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "=",
        "'",
        '"',
        "'''",
        "\\",
        "#",
        "\n",
        "\r",
        "\0",
        ".",
        "*",
        "**",
        "-",
    ]
    + [
        "not ",
        "lambda:",
        "await ",
        "yield ",
        "x",
        "f",
        "range",
        "range(",
        "Genotype(",
        "Name = ",
        "0x",
        "1e9",
        "9" * 99,
    ]
    + [
        "'noise'",
        "('noise', 0)",
        "('noise', 2, 0)",
        "[('noise', 0)]",
        "True",
        "None",
        "...",
        ";",
        ":=",
        "é",
        "\ud800",
    ]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 12), PIECES | st.text(max_size=5)), max_size=6
)


@given(st.sampled_from([DARTS_V2, DROPNAS, FAIR_DARTS_A, form()]), EDITS)
@example(form(), [(0, 0, '"' * 3 + 'a"a' + '"' * 3 + ' ------1 # "')])
@settings(deadline=None, max_examples=400)
def test_a_damaged_text_is_refused_or_a_valid_genotype(text, edits):
    for start, length, piece in edits:
        start %= len(text) + 1
        text = text[:start] + piece + text[start + length :]
    begin = process_time()
    try:
        validate(load_genotype(text))
    except GenotypeError as error:
        assert re.match("text|genotype", str(error))
    assert process_time() - begin < 1


@given(st.lists(PIECES, max_size=60).map("".join) | st.text())
@settings(deadline=None, max_examples=300)
def test_any_text_at_all(text):
    for begin in ("Genotype(", "{normal_concat", "|", "{", ""):
        if os.path.exists(begin + text):
            continue  # it is read as a file, and an error names that
        try:
            validate(load_genotype(begin + text))
        except GenotypeError as error:
            assert re.match("text|genotype", str(error))
