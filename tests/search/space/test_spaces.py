import pytest

from dots_zoo.genotype import OPS
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.named import (
    S0,
    SPACES,
    darts_space,
    groups_by_function,
    groups_by_weights,
    named_space,
    restricted,
)


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("S0", "none max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 "
               "dil_conv_5x5"),
        ("S0_without_none", "max_pool_3x3 avg_pool_3x3 skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 "
                            "dil_conv_5x5"),
        ("S2", "skip_connect sep_conv_3x3"),
        ("S3", "none skip_connect sep_conv_3x3"),
        ("S4", "noise sep_conv_3x3"),
        ("1-skip", "none skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 dil_conv_5x5"),
        ("3-skip", "none skip_connect skip_connect skip_connect sep_conv_3x3 sep_conv_5x5 dil_conv_3x3 "
                   "dil_conv_5x5"),
    ],
)  # fmt: skip
def test_most_spaces_have_the_same_candidates_on_every_edge(name, operations):
    space = named_space(name)
    assert space.cell_types == ("normal", "reduce") and len(space.edges) == 14 and space.family == "darts"
    for kind in space.cell_types:
        assert set(space.candidates(kind)) == {tuple(operations.split())}


def test_s1_has_two_operations_on_every_edge_and_not_the_same_ones():
    space = named_space("S1")
    assert {len(row) for kind in space.cell_types for row in space.candidates(kind)} == {2}
    assert space.candidates("normal")[0] == ("skip_connect", "dil_conv_3x3")
    assert space.candidates("normal")[5] == ("max_pool_3x3", "skip_connect")
    assert space.candidates("normal")[13] == ("dil_conv_3x3", "dil_conv_5x5")
    assert space.candidates("reduce")[:2] == (
        ("max_pool_3x3", "avg_pool_3x3"),
        ("max_pool_3x3", "dil_conv_3x3"),
    )
    assert space.candidates("reduce")[13] == ("skip_connect", "dil_conv_5x5")


def test_s6_is_the_cell_of_nas_bench_201():
    space = named_space("S6")
    assert space.family == "nasbench201" and space.cell_types == ("cell",)
    assert set(space.candidates("cell")) == {
        ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    }


def test_every_name_is_a_space_and_no_other():
    assert all(named_space(name) for name in SPACES)
    with pytest.raises(DotsZooError, match="space: expected one of S0, .*, S6, got 'S5'"):
        named_space("S5")


def test_group_v2_splits_by_whether_an_operation_has_weights_and_v1_has_no_place_for_none():
    without, with_weights = groups_by_weights()
    assert {*without, *with_weights} == set(OPS) and not set(without) & set(with_weights)
    assert all("conv" in name for name in with_weights) and not any("conv" in name for name in without)
    groups = [tuple(name for name in group if name in S0) for group in groups_by_function()]
    assert groups == [
        ("skip_connect",),
        ("max_pool_3x3", "avg_pool_3x3"),
        ("sep_conv_3x3", "sep_conv_5x5"),
        ("dil_conv_3x3", "dil_conv_5x5"),
    ]


def test_a_space_is_restricted_on_every_edge_and_an_edge_without_candidates_is_refused():
    space = darts_space(("none", "skip_connect", "skip_connect"), 2)
    assert set(restricted(space, frozenset({"skip_connect"})).candidates("reduce")) == {("skip_connect",) * 2}
    with pytest.raises(DotsZooError, match="edge 2<-0: expected one or more of"):
        restricted(space, frozenset({"sep_conv_3x3"}))
