import torch

from dots_zoo.search.stages.split import split

LABELS = torch.arange(40) % 4


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_halves_share_no_image_and_are_drawn():
    parts = split(LABELS[:11], None, draws())
    assert len(parts["a"]) == 5 and len(parts["b"]) == 6
    both = sorted(torch.cat([parts["a"], parts["b"]]).tolist())
    assert both == list(range(11)) == sorted(parts["all"].tolist())
    assert parts["a"].tolist() != split(LABELS[:11], None, draws(1))["a"].tolist()


def test_shares_of_every_class_as_on_imagenet():
    parts = split(LABELS, (0.5, 0.2), draws())
    assert LABELS[parts["a"]].bincount().tolist() == [5] * 4
    assert LABELS[parts["b"]].bincount().tolist() == [2] * 4
    assert sorted(parts["all"].tolist()) == sorted(torch.cat([parts["a"], parts["b"]]).tolist())
    assert len(set(parts["all"].tolist())) == 28
