"""Compute the layout of a drawn cell: positions only.

Every edge has a row of its own, ordered by the node it enters, and the nodes step down to the right like
stairs: a row passes below the nodes before its own, and what leaves a node to the right passes above the
nodes after it. So no line crosses a box and no label meets another, however many edges there are. Lengths are
inches, y grows downwards.
"""

from dataclasses import dataclass

from ..genotype import CellGenotype

ROW = 0.34  # from one edge to the next of its node
STEP = 0.1  # more than that from one node to the next
LABEL_WIDTH, LABEL_HEIGHT = 0.68, 0.24
END_WIDTH = 0.48  # of the boxes of the cell's inputs and output
NODE_WIDTH = 0.36
PORT = 0.1  # between two lines that leave a node
GAP = 0.2  # room for a turn or an arrow


@dataclass(frozen=True)
class Box:
    """A rectangle; `top` is the smaller y."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> tuple[float, float]:
        """The centre (x, y)."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


@dataclass(frozen=True)
class Layout:
    """The positions of a cell's parts; (0, 0) is its upper left corner, the output is at the right.

    `labels` and `starts` follow `cell.edges`. An edge starts on the right side of its box if that is an input
    of the cell, else on the bottom, and enters its node on the left, in the row of its label.
    """

    boxes: dict[int, Box]
    output: Box
    labels: tuple[Box, ...]
    starts: tuple[tuple[float, float], ...]


def lay_out(cell: CellGenotype) -> Layout:
    """Lay a cell out as stairs; labels are beside the cell's inputs, or near the node of their edge."""
    rows, spans = _rows(cell)
    inputs = range(cell.nodes[0])
    height = spans[cell.nodes[-1]][1]
    tall = (height - STEP * (len(inputs) - 1)) / len(inputs)
    boxes = {node: Box(0, node * (tall + STEP), END_WIDTH, node * (tall + STEP) + tall) for node in inputs}
    first_label = END_WIDTH + max(3 * GAP, height / 8)  # the taller, the more room for the curves
    left = first_label + LABEL_WIDTH + GAP
    for node in cell.nodes:
        if any(edge.input not in inputs for edge in cell.edges_into(node)):
            left += LABEL_WIDTH + GAP
        right = left + max(NODE_WIDTH, PORT * sum(edge.input == node for edge in cell.edges))
        boxes[node] = Box(left, spans[node][0], right, spans[node][1])
        left = right + GAP
    labels = []
    for edge, y in zip(cell.edges, rows, strict=True):
        x = first_label if edge.input in inputs else boxes[edge.node].left - GAP - LABEL_WIDTH
        labels.append(Box(x, y - LABEL_HEIGHT / 2, x + LABEL_WIDTH, y + LABEL_HEIGHT / 2))
    starts = tuple(_start(cell, index, rows, boxes) for index in range(len(rows)))
    return Layout(boxes, Box(left + GAP, 0, left + GAP + END_WIDTH, height), tuple(labels), starts)


def _rows(cell: CellGenotype) -> tuple[list[float], dict[int, tuple[float, float]]]:
    """Return the y of every edge, in the order of `cell.edges`, and (top, bottom) of every node."""
    rows = [0.0] * len(cell.edges)
    spans = {}
    y = LABEL_HEIGHT / 2
    for node in cell.nodes:
        top = y
        for index in [index for index, edge in enumerate(cell.edges) if edge.node == node]:
            rows[index] = y
            y += ROW
        y = max(y, top + ROW)  # an empty node has a row for its box
        spans[node] = (top - LABEL_HEIGHT / 2, y - ROW + LABEL_HEIGHT / 2)
        y += STEP
    return rows, spans


def _start(cell: CellGenotype, index: int, rows: list[float], boxes: dict[int, Box]) -> tuple[float, float]:
    """Return the point where an edge leaves its input: lines leave a box in the order of their rows."""
    source = cell.edges[index].input
    siblings = [row for row, edge in zip(rows, cell.edges, strict=True) if edge.input == source]
    share = (sorted(siblings).index(rows[index]) + 0.5) / len(siblings)
    box = boxes[source]
    if source < cell.nodes[0]:
        return box.right, box.top + share * (box.bottom - box.top)
    return box.right - share * (box.right - box.left), box.bottom
