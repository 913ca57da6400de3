"""Chunks of a range, one for each thread of PyTorch."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dots_zoo.kernels import parallel
from dots_zoo.kernels.parallel import parallel_for
from helpers.operators import threads

NO_TEAM = "this PyTorch has no OpenMP of GNU's interface"
TASKS = Path("/proc/self/task")


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last))


@pytest.fixture(params=["team", "pool"])
def where(request, monkeypatch):
    """A pool of threads stands in for those of OpenMP where there are none."""
    if request.param == "pool":
        monkeypatch.setattr(parallel, "_GOMP_PARALLEL", None)
    elif parallel._GOMP_PARALLEL is None:
        pytest.skip(NO_TEAM)


@given(count=st.integers(1, 9), many=st.integers(1, 5))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_cover_a_range_in_order(where, count, many):
    with threads(many):
        chunks = parallel_for(numbers, count)
    assert sum(chunks, []) == list(range(count)) and len(chunks) == min(count, many)


def test_what_a_part_raises_is_raised(where):
    def part(first: int, last: int) -> None:
        if first:
            raise KeyError(first)

    with threads(2), pytest.raises(KeyError, match="4"):
        parallel_for(part, 8)


def test_a_team_of_fewer_threads_than_asked_computes_all_parts():
    """As one within a part is, which has a single thread."""
    if parallel._GOMP_PARALLEL is None:
        pytest.skip(NO_TEAM)

    def part(first: int, last: int) -> tuple[int, list[list[int]]]:
        return torch.get_num_threads(), parallel_for(numbers, 6)

    with threads(2):
        assert parallel_for(part, 2) == [(2, [[0, 1, 2], [3, 4, 5]])] * 2


@pytest.mark.skipif(not TASKS.is_dir(), reason="no list of the threads of a process")
def test_the_threads_are_those_of_pytorch():
    if parallel._GOMP_PARALLEL is None:
        pytest.skip(NO_TEAM)
    with threads(2):
        torch.relu(torch.zeros(1 << 20))
        before = len([*TASKS.iterdir()])
        parallel_for(numbers, 2)
        assert len([*TASKS.iterdir()]) <= before


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of a fork with threads, Python 3.12
def test_threads_work_in_a_forked_process_too(where):
    with threads(2):
        assert parallel_for(lambda first, last: last - first, 2) == [1, 1]
        pid = os.fork()
        if not pid:
            signal.alarm(30)  # a team in a fork would wait for threads that are not there
            os._exit(0 if parallel_for(lambda first, last: last - first, 2) == [1, 1] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
