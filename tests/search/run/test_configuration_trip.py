"""The way of a configuration from the command line to the first step is short, and stays so."""

from helpers.configuration_trip import configuration_trip


def test_a_configuration_passes_few_hands() -> None:
    trip = configuration_trip("darts")
    assert trip[0][0] == "dots_zoo/commands/cli.py"
    assert trip[-1] == ("dots_zoo/data/datasets.py", "train_batch")
    assert len({file for file, _ in trip}) <= 12 and len(trip) <= 22, trip
