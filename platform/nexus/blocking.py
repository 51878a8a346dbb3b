"""Asynchronous work for programs that are not: one thread with one event loop, for the whole process.

It begins with the first synchronous call and ends with the process, whatever is still open there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import threading
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from nexus.errors import NexusError

T = TypeVar("T")

_AT_EXIT = 3.0  # seconds that the ending of all that is open may take


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="nexus-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there, in the context of the caller, and wait for its result or its exception.

        An interrupt while waiting cancels it, waits until it has ended, and is raised. Refused in the
        loop's own thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            work.close()
            raise NexusError(
                "A synchronous call inside of the event loop that serves synchronous calls would never end.",
                remedy="Await the asynchronous form there.",
            )
        waiting = _Waiting(work)
        context = contextvars.copy_context()
        self.loop.call_soon_threadsafe(waiting.start, context)
        try:
            waiting.ended.wait()
        except BaseException:
            self.loop.call_soon_threadsafe(waiting.cancel)
            waiting.ended.wait(_AT_EXIT)
            raise
        return waiting.result()

    def stop(self) -> None:
        """End what runs there, close what is open, and the loop; bounded in time."""
        ended = asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        with contextlib.suppress(TimeoutError):
            ended.result(_AT_EXIT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1)

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_asyncgens()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


class _Waiting(Generic[T]):
    """A coroutine on its way through another thread."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.ended = threading.Event()
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def start(self, context: contextvars.Context) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work, context=context)
        self._task.add_done_callback(lambda _: self.ended.set())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        assert self._task is not None
        return self._task.result()


_lock = threading.Lock()
_thread: LoopThread | None = None


def loop_thread() -> LoopThread:
    """The one of this process, started at the first use."""
    global _thread
    with _lock:
        if _thread is None:
            _thread = LoopThread()
            atexit.register(_stop)
        return _thread


def run(work: Coroutine[Any, Any, T]) -> T:
    """LoopThread.run, with the one of this process."""
    return loop_thread().run(work)


def _stop() -> None:
    if _thread is not None:
        _thread.stop()


def _forget() -> None:
    """After a fork the child has the object and not the thread."""
    global _thread, _lock
    _thread, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
