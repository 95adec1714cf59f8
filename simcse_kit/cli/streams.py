"""Guards of standard output and standard error, which escape control characters.

Both streams show untrusted sentences and names, so characters that could control a terminal are
escaped, also in a pipe: the only data that commands write to standard output is JSON, which is
ASCII. A failure to write standard output becomes one error; failures of standard error are ignored.
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

# Progress bars return to the start of their line, and move between lines in separate calls.
_MOVES = re.compile(r"(?:\n|\x1b\[A)+")


class OutputError(SimcseError):
    """Standard output cannot be written.

    Args:
        error: the reason.
    """

    def __init__(self, error: OSError):
        self.closed_by_reader = error.errno == errno.EPIPE
        reason = "its reader has gone" if self.closed_by_reader else error.strerror or error
        super().__init__(
            f"standard output cannot be written: {reason}; files that the command writes are not "
            "affected"
        )


@contextmanager
def guarded() -> Iterator[None]:
    """Guard ``sys.stdout`` and ``sys.stderr`` inside a ``with`` block.

    Raises:
        OutputError: standard output cannot be written.
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
    """A text stream that escapes control characters.

    It has no ``buffer``, so it cannot be bypassed.

    Args:
        inner: the stream; None if the process was started without one.
    """

    def __init__(self, inner: TextIO | None):
        self._inner = inner

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Treatment of characters that the encoding lacks."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        if self._inner is None:
            raise io.UnsupportedOperation("fileno")
        return self._inner.fileno()

    def write(self, text: str) -> int:
        """Escape and write the text."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes str, not {type(text).__name__}")
        if not text:  # typer tests the stream in this way, and hides failures
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
        """Write buffered text."""
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
        """Discard buffered text, which would make the interpreter fail at exit."""
        with suppress(OSError):
            descriptor = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(descriptor, self.fileno())
            finally:
                os.close(descriptor)


class _ErrorGuard(_Guard):
    """Standard error: progress bars may move the cursor, and failures are ignored."""

    def _safe(self, text: str) -> str:
        if _MOVES.fullmatch(text):
            return text
        return "\r" + visible(text[1:]) if text.startswith("\r") else visible(text)

    def _failed(self, error: OSError) -> None:  # noqa: ARG002
        self._drop()
