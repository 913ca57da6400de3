"""Logits to weights: pure functions of tensors, each an equation.

Source: DOTS (CVPR 2021), Eq. 2 (softmax over operations), Sec. 4.2.2 (a softmax in every group), Eq. 6
(softmax over edge combinations), Eq. 7 (edge weights), Eq. 9 (annealing).

Differs from the official code (guyuchao/DOTS@27e5004): Eq. 7 keeps its 1/N(c), which the code drops
(`average=False` gives the code's sum).
"""

import math

import torch
from torch import Tensor

from dots_zoo.runtime.errors import DotsZooError

from .named import Groups
from .space import Choice, EdgeRule, SearchSpace


def group_softmax(logits: Tensor, groups: Tensor, temperature: float = 1.0) -> Tensor:
    """Return a softmax in every group of every row (Eq. 2 with one group, Eq. 6, Sec. 4.2.2), (R, C).

    Every group that has a member in a row sums to one there; an alternative in no group is zero.

    Args:
        logits: (R, C).
        groups: (G, R, C), True where an alternative is in the group.
        temperature: T, by which the logits are divided.
    """
    lowest = torch.finfo(logits.dtype).min
    scaled = (logits / temperature).masked_fill(~groups, lowest)  # (G, R, C), broadcast over the groups
    return (scaled.softmax(dim=-1) * groups).sum(dim=0)  # (R, C)


def sigmoid_weights(logits: Tensor, members: Tensor, temperature: float = 1.0) -> Tensor:
    """Return a sigmoid of every alternative (DOTS, Table 4a), (R, C), zero where `members` is False."""
    return (logits / temperature).sigmoid() * members


def edge_weights(combination_weights: Tensor, membership: Tensor) -> Tensor:
    """Return gamma (Eq. 7), (E,), from beta, (nodes, C), and `edge_membership`, (nodes, C, E)."""
    return torch.einsum("nc,nce->e", combination_weights, membership.to(combination_weights.dtype))


def temperature(epoch: int, epochs: int, start: float, end: float) -> float:
    """Return T(t) = T0 * theta^t (Eq. 9), with theta such that epoch `epochs - 1` has temperature `end`.

    A single epoch has temperature T0.
    """
    theta = (end / start) ** (1 / (epochs - 1)) if epochs > 1 else 1.0
    return start * theta**epoch


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """Return an epoch's learning rate: half a cosine from `start` at epoch 0 to `end` at epoch `epochs`."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def entropy(weights: Tensor) -> Tensor:
    """Return the mean entropy in nats of the softmaxes in `weights` (any shape).

    Each softmax sums to one, so the sum of all weights counts them.
    """
    mean: Tensor = torch.special.entr(weights).sum() / weights.sum()
    return mean


def operation_groups(space: SearchSpace, cell_type: str, groups: Groups, device: torch.device) -> Tensor:
    """Return the mask of the candidates in every group, (G, E, O).

    Raises:
        DotsZooError: if a candidate is not in exactly one group.
    """
    candidates = space.candidates(cell_type)
    for name in sorted({name for operations in candidates for name in operations}):
        if sum(name in group for group in groups) != 1:
            raise DotsZooError(
                f"groups: expected {name} of the {cell_type} cell in exactly one group, got {groups}; search "
                "without it, or in other groups"
            )
    width = max(len(operations) for operations in candidates)
    padded = [(*operations, *[""] * (width - len(operations))) for operations in candidates]
    return torch.tensor(
        [[[name in group for name in row] for row in padded] for group in groups], device=device
    )


def one_group(choice: Choice, device: torch.device) -> Tensor:
    """Return the group of all alternatives of a row, (1, R, C): they compete in one softmax."""
    width = choice.shape[1]
    return torch.tensor(
        [[[column < len(row) for column in range(width)] for row in choice.labels]], device=device
    )


def edge_membership(space: SearchSpace, rule: EdgeRule, average: bool, device: torch.device) -> Tensor:
    """Return the membership of edges in the combinations c of a node, (nodes, C, E).

    A member has 1/N(c), or 1 without `average`; any other edge has 0.
    """
    by_node = [space.combinations(node, rule) for node in space.nodes]
    table = torch.zeros(space.intermediate, max(map(len, by_node)), len(space.edges))
    for node, combinations in enumerate(by_node):
        for column, chosen in enumerate(combinations):
            table[node, column, list(chosen)] = 1 / len(chosen) if average else 1.0
    return table.to(device)
