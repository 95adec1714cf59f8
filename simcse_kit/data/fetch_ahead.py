"""Copies of remote files, made in the background before they are needed."""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from simcse_kit.data.remote import RemoteFile

__all__ = ["FetchAhead"]

_Job = tuple["Future[Path]", RemoteFile, Path]


class FetchAhead:
    """A thread that copies the files that are expected next, as far as there is room.

    Args:
        files: All files.
        folder: Folder of the copies.
        limit: Most bytes of the copies that have not been taken.
    """

    def __init__(self, files: Sequence[RemoteFile], folder: Path, limit: int):
        self._files = files
        self._folder = folder
        self._limit = limit
        self._expected: list[int] = []
        self._copies: dict[int, Future[Path]] = {}
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        # A daemon, since a long download must not keep the process from ending.
        threading.Thread(target=_fetch, args=(self._queue,), daemon=True).start()
        weakref.finalize(self, self._queue.put, None)

    def expect(self, numbers: Sequence[int]) -> None:
        """Copy these files, in this order, and give up other ones.

        Args:
            numbers: Numbers of files.
        """
        self._expected = list(numbers)
        for number, copy in list(self._copies.items()):
            if number not in self._expected and (copy.cancel() or copy.done()):
                self._remove(number)
        self._start()

    def take(self, number: int, folder: Path) -> Path:
        """Move the copy of a file into a folder, or copy the file now if that has not been begun.

        Args:
            number: Number of the file.
            folder: The folder.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        copy = self._copies.pop(number, None)
        self._expected = [each for each in self._expected if each != number]
        path = None
        if copy is not None and not copy.cancel():
            with suppress(Exception):  # which will come again
                path = copy.result().rename(folder / self._files[number].file_name)
        self._start()
        return path or self._files[number].fetch(folder)

    def _start(self) -> None:
        """Start the copies for which there is room."""
        used = sum(self._files[number].size for number in self._copies)
        for number in self._expected:
            if number in self._copies:
                continue
            size = self._files[number].size
            if not size or used + size > self._limit:
                break
            used += size
            folder = self._folder / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            copy: Future[Path] = Future()
            self._copies[number] = copy
            self._queue.put((copy, self._files[number], folder))

    def _remove(self, number: int) -> None:
        del self._copies[number]
        shutil.rmtree(self._folder / str(number), ignore_errors=True)


def _fetch(queue: SimpleQueue[_Job | None]) -> None:
    """Do the jobs of a queue until None comes."""
    while (job := queue.get()) is not None:
        copy, file, folder = job
        if copy.set_running_or_notify_cancel():
            try:
                copy.set_result(file.fetch(folder))
            except BaseException as error:
                copy.set_exception(error)
