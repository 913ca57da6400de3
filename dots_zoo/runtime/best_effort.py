"""Attempt what a result can do without, such as its pictures; a failure is a warning."""

import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


def attempt(what: str, action: Callable[[], T]) -> T | None:
    """Return the result of `action`; where it raises, warn that `what` is left out and return None."""
    try:
        return action()
    except Exception as error:  # matplotlib, git and a full disk have no common base
        reason = " ".join(str(error).split())
        _log.warning("%s: left out (%s: %s)", what, type(error).__name__, reason)
        return None
