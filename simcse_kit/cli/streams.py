"""Standard output and standard error of a command, guarded at the one place they are written.

Both show sentences and names of files, models and servers, so what could steer a terminal is
escaped, whether there is a terminal or a pipe: no command writes data to standard output but JSON,
which is ASCII. A failure to write standard output becomes one error; standard error is best effort.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from simcse_kit.errors import SimcseError
from simcse_kit.utils.printable import visible

__all__ = ["OutputError", "guarded"]

# What progress bars write besides text: they return to the start of their line, and move between
# lines in calls of their own.
_MOVES = re.compile(r"(?:\n|\x1b\[A)+")


class OutputError(SimcseError):
    """Standard output cannot be written.

    Args:
        error: why.
    """

    def __init__(self, error: OSError):
        self.closed_by_reader = error.errno == errno.EPIPE
        reason = "its reader is gone" if self.closed_by_reader else error.strerror or error
        super().__init__(
            f"standard output cannot be written: {reason}; files that the command writes are not "
            "affected"
        )


@contextmanager
def guarded() -> Iterator[None]:
    """Guard ``sys.stdout`` and ``sys.stderr`` inside.

    Raises:
        OutputError: standard output cannot be written, at the latest at the end.
    """
    kept = sys.stdout, sys.stderr
    out = _Guard(sys.stdout)
    sys.stdout, sys.stderr = out, _ErrorGuard(sys.stderr)
    try:
        yield
        out.flush()
    finally:
        sys.stdout, sys.stderr = kept


class _Guard(io.TextIOBase):
    """A text stream whose text is escaped.

    It has no ``buffer``, so that nothing can go around it.

    Args:
        inner: the stream; None where the process was started without one.
    """

    def __init__(self, inner: TextIO | None):
        self._inner = inner

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How characters are written that the encoding lacks."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream."""
        if self._inner is None:
            raise io.UnsupportedOperation("fileno")
        return self._inner.fileno()

    def write(self, text: str) -> int:
        """Write the text, escaped."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes str, not {type(text).__name__}")
        if not text:  # typer asks in this way whether text is taken, and hides what goes wrong
            return 0
        if self._inner is None:
            self._failed(OSError(errno.EBADF, "it is closed"))
            return len(text)
        shown = self._safe(text).encode(self.encoding, self.errors).decode(self.encoding)
        try:
            self._inner.write(shown)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        # Python flushes once more when the guard is collected, and from 3.13 on reports a failure.
        if self._inner is None or self._inner.closed:
            return
        try:
            self._inner.flush()
        except OSError as error:
            self._failed(error)

    def _safe(self, text: str) -> str:
        return visible(text)

    def _failed(self, error: OSError) -> None:
        self._drop()
        raise OutputError(error) from None

    def _drop(self) -> None:
        """Send what is still buffered nowhere, or the interpreter would fail on it at its end."""
        with suppress(OSError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(descriptor, self.fileno())
            finally:
                os.close(descriptor)


class _ErrorGuard(_Guard):
    """Standard error: progress bars may move the cursor, and a failure is no reason to stop."""

    def _safe(self, text: str) -> str:
        if _MOVES.fullmatch(text):
            return text
        return "\r" + visible(text[1:]) if text.startswith("\r") else visible(text)

    def _failed(self, error: OSError) -> None:  # noqa: ARG002
        self._drop()
