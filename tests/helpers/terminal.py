"""A terminal of a given width, which keeps what is written to it and shows what stands on it in the end."""

import fcntl
import io
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Written:
    """The text that a terminal received, once it is closed."""

    chunks: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode().replace("\r\n", "\n")

    @property
    def frames(self) -> list[str]:
        """Everything between two moves of the cursor to the left."""
        return [frame for line in self.text.split("\n") for frame in line.split("\r")]

    @property
    def screen(self) -> list[str]:
        """The lines as a person sees them in the end: a carriage return writes over its line."""
        shown = []
        for line in self.text.split("\n"):
            over = ""
            for frame in line.split("\r"):
                over = frame + over[len(frame) :]
            shown.append(over.rstrip())
        return shown


@contextmanager
def terminal(columns: int) -> Iterator[tuple[io.TextIOWrapper, Written]]:
    """A pseudo-terminal: its file for standard error, and what was written to it after the block."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    written = Written()

    def read() -> None:
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the other side is closed
                return
            if not chunk:
                return
            written.chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    file = open(other, "w", encoding="utf-8")  # noqa: SIM115 (closed below, which ends the reader)
    try:
        yield file, written
    finally:
        file.close()
        reader.join(10)
        os.close(main)
