"""Show how far a run is: on a terminal one bar with a line an epoch above it, elsewhere the lines alone.

Both go to standard error: standard output is for results. The bar is as wide as the terminal, and nothing of
it is written to a file or a pipe.
"""

import sys
from types import TracebackType

from tqdm import tqdm

FORMAT = "{desc}{percentage:3.0f} % |{bar}| {remaining} left"


class ProgressDisplay:
    """The bar and the lines of a run of steps.

    No bar is drawn before the first `start_epoch`: what can be refused was checked by then.

    Args:
        total: steps of the whole run.
        done: steps that a run which resumes has already made.
        show: False shows neither bar nor lines.
    """

    def __init__(self, total: int, *, done: int = 0, show: bool = True) -> None:
        self.total, self.done, self.show = total, done, show
        self._bar: tqdm | None = None

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the bar from the terminal; the lines above it stay."""
        if self._bar is not None:
            self._bar.close()

    def start_epoch(self, title: str) -> None:
        """Draw the bar of the steps from here on under a title, such as "topology search, epoch 3 of 18"."""
        if self._bar is None:
            self._bar = steps_bar(self.total, title, initial=self.done, show=self.show)
        self._bar.set_description(title)

    def step(self) -> None:
        """Count a step."""
        if self._bar is not None:
            self._bar.update()

    def line(self, text: str) -> None:
        """Write a line above the bar, or at the end of a log."""
        if self.show:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()


def steps_bar(total: int, title: str = "", *, initial: int = 0, show: bool = True) -> tqdm:
    """Return a bar of `total` steps on standard error, which draws nothing where that is no terminal."""
    return tqdm(
        desc=f"{title}: " if title else None,
        total=total,
        initial=initial,
        disable=None if show else True,
        bar_format=FORMAT,
        dynamic_ncols=True,
        leave=False,
    )
