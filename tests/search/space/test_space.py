import pytest

from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.search.space.named import darts_space
from dots_zoo.search.space.space import CellSpace, SearchSpace, edge_choice, operation_choice

SPACE = darts_space()


def test_the_edges_of_the_darts_cell_are_numbered_node_by_node_and_by_input():
    assert SPACE.edges == (
        *((2, 0), (2, 1)),
        *((3, 0), (3, 1), (3, 2)),
        *((4, 0), (4, 1), (4, 2), (4, 3)),
        *((5, 0), (5, 1), (5, 2), (5, 3), (5, 4)),
    )
    assert [SPACE.incoming(node) for node in SPACE.nodes] == [
        (0, 1),
        (2, 3, 4),
        (5, 6, 7, 8),
        (9, 10, 11, 12, 13),
    ]


def test_the_number_of_intermediate_nodes_is_free():
    assert darts_space(("skip_connect",), 2).edges == ((2, 0), (2, 1), (3, 0), (3, 1), (3, 2))


def test_pairs_are_those_of_eq_5():
    assert SPACE.combinations(3, "pairs") == ((2, 3), (2, 4), (3, 4))
    assert [len(SPACE.combinations(node, "pairs")) for node in SPACE.nodes] == [1, 3, 6, 10]


def test_the_baselines_of_table_4a_weigh_every_edge_by_itself():
    assert (
        SPACE.combinations(3, "edge_weights") == SPACE.combinations(3, "edge_sigmoid") == ((2,), (3,), (4,))
    )


def test_the_cell_of_nas_bench_201_has_one_input_and_six_edges():
    space = SearchSpace(3, (CellSpace("cell", (("none",),) * 6),), "nasbench201")
    assert space.edges == ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)) and list(space.nodes) == [1, 2, 3]


def test_any_number_of_edges_gives_all_combinations_but_the_empty_one_as_eq_13_counts_them():
    assert SPACE.combinations(2, "any") == ((0,), (1,), (0, 1))
    assert [len(SPACE.combinations(node, "any")) for node in SPACE.nodes] == [2**n - 1 for n in (2, 3, 4, 5)]
    assert len(set(SPACE.combinations(5, "any"))) == 31


def test_choices_are_titled_by_edge_and_by_node_and_labelled_by_operation_and_by_inputs():
    space = darts_space(("none", "skip_connect", "skip_connect"), 2)
    operations = operation_choice(space, "normal")
    assert operations.rows == ("2<-0", "2<-1", "3<-0", "3<-1", "3<-2") and operations.shape == (5, 3)
    assert operations.labels[4] == ("none", "skip_connect (1)", "skip_connect (2)")
    edges = edge_choice(space, "pairs")
    assert edges.rows == ("node 2", "node 3") and edges.shape == (2, 3)
    assert edges.labels == (("0+1",), ("0+1", "0+2", "1+2"))


def test_a_space_of_the_wrong_size_is_refused():
    with pytest.raises(
        DotsZooError, match="normal cell: expected candidates for the 5 edges of 2 nodes, got 1"
    ):
        SearchSpace(2, (CellSpace("normal", (("none",),)),))


def test_an_unknown_operation_is_refused():
    with pytest.raises(
        DotsZooError, match="normal cell, edge 2<-0: expected one or more of .*, got conv_9x9"
    ):
        darts_space(("conv_9x9",), 1)


def test_an_edge_without_candidates_is_refused():
    with pytest.raises(DotsZooError, match="edge 2<-1: expected one or more of .*, got nothing"):
        SearchSpace(1, (CellSpace("normal", (("none",), ())),))


def test_a_node_that_could_only_be_nothing_is_refused():
    with pytest.raises(DotsZooError, match="normal cell, node 2: expected an operation other than none"):
        darts_space(("none",), 1)
