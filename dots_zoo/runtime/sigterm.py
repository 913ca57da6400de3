"""SIGTERM, which schedulers send before they kill: a run ends its step and keeps where it stands."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM  # 143, what a shell reports of a process that SIGTERM ended


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM does not end the process; gives a function that says whether it has come.

    Signals reach the main thread alone: in another it never has.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)
