"""Lines over two file descriptors, each served by a thread that ends with the process.

A read from stdin cannot be interrupted, and a client that does not read must not hold up the end: so neither
thread is ever waited for.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress

_CHUNK = 1 << 16
_AHEAD = 16


class TooLong(Exception):
    """A line over the limit was skipped."""


class Lines:
    """`read` gives the lines of one descriptor, `write` writes one to the other. For one event loop."""

    def __init__(self, source: int, target: int, longest: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = longest
        self._read: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._slots = threading.Semaphore(_AHEAD)  # a flood waits in the pipe, and not here
        self._written: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._reader, args=(source,), name="mcp-stdin", daemon=True).start()
        threading.Thread(target=self._writer, args=(target,), name="mcp-stdout", daemon=True).start()

    async def read(self) -> bytes | None:
        """The next line without its end, None when there are no more; raises TooLong instead of one."""
        line = await self._read.get()
        self._slots.release()
        if line is not None and len(line) > self._longest:
            raise TooLong
        return line

    async def write(self, line: bytes) -> None:
        """Raises OSError when nobody is there to read it."""
        done = self._loop.create_future()
        self._written.put((line + b"\n", done))
        await done

    def _reader(self, source: int) -> None:
        with suppress(RuntimeError):  # the loop has ended before the input
            for line in _lines(source, self._longest):
                self._hand_over(line)
            self._hand_over(None)

    def _hand_over(self, line: bytes | None) -> None:
        self._slots.acquire()
        self._loop.call_soon_threadsafe(self._read.put_nowait, line)

    def _writer(self, target: int) -> None:
        with suppress(RuntimeError):
            while True:
                line, done = self._written.get()
                failure: OSError | None = None
                try:
                    while line:
                        line = line[os.write(target, line) :]
                except OSError as broken:
                    failure = broken
                self._loop.call_soon_threadsafe(_settle, done, failure)


def _lines(source: int, longest: int) -> Iterator[bytes]:
    """The lines of `source`; of one that is too long only so much that it can be seen to be."""
    held = bytearray()
    while chunk := _chunk(source):
        first, *others = chunk.split(b"\n")
        _hold(held, first, longest)
        for part in others:
            yield bytes(held)
            held.clear()
            _hold(held, part, longest)
    if held:
        yield bytes(held)


def _hold(held: bytearray, part: bytes, longest: int) -> None:
    held += part[: max(0, longest + 1 - len(held))]


def _chunk(source: int) -> bytes:
    try:
        return os.read(source, _CHUNK)
    except OSError:  # as good as the end
        return b""


def _settle(done: asyncio.Future[None], failure: OSError | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)
