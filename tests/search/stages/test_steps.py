"""What a step does not compute."""

import pytest
import torch
from torch import nn

from dots_zoo.search.stages.steps import constant


def test_constant_weights_have_no_gradient_and_what_was_constant_stays_so():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    network[1].weight.requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(ValueError, match="stop"), constant(network):
        network(x).sum().backward()
        raise ValueError("stop")
    assert x.grad is not None and all(p.grad is None for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, True]
