"""A sample of a stream of unknown length, evenly spread over it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["SAMPLE", "Sample"]

SAMPLE = 1024
"""Least number of items of a sample, where there are as many."""


class Sample:
    """Items of a stream at equal distances: all of up to 2,047, else 1,024 to 2,047 of them.

    Args:
        stream: read to its end.

    Attributes:
        items: the sample, in the order of the stream.
        seen: how many items the stream had.
    """

    def __init__(self, stream: Iterable[str]):
        self.items: list[str] = []
        self.seen = 0
        step = 1
        for item in stream:
            if self.seen % step == 0:
                self.items.append(item)
                if len(self.items) == 2 * SAMPLE:
                    self.items = self.items[::2]
                    step *= 2
            self.seen += 1
