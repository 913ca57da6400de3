"""Handle SIGTERM, which schedulers send before they kill: a run ends its step and saves its state."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM  # 143, a shell's status of a process that SIGTERM ended


@contextmanager
def sigterm_flag() -> Iterator[Callable[[], bool]]:
    """Keep SIGTERM from ending the process inside the block; yield a function that returns True once it came.

    Signals reach the main thread alone: in another thread the function always returns False.
    """
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(signals)
    finally:
        signal.signal(signal.SIGTERM, before)
