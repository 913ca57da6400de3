"""The way of a configuration from the command line to the first step is short, and stays so."""

from helpers.configuration_trip import configuration_trip


def test_a_configuration_passes_few_hands() -> None:
    trip = configuration_trip("darts")
    assert (
        trip[0] == ("dots_zoo/commands/cli.py", "main") and ("search/stages/loop.py", "train_epoch") in trip
    )
    assert len({file for file, _ in trip}) <= 14 and len(trip) <= 30, trip
