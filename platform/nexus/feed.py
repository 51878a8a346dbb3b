"""What happened, in order, to those who may know: what channels subscribe to.

One tail per change log reads it while there are subscribers. A subscription first catches up from the log at
its reader's own pace, then is handed what the tail reads, through a bounded queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from nexus import cursor
from nexus.errors import NexusError, SlowConsumer, Unavailable, UnknownTopic, did_you_mean
from nexus.filters import Filter, matches
from nexus.operation import Operation
from nexus.policy import Policy
from nexus.ports import ChangeSource, LoggedChange, Record
from nexus.registry import Registry
from nexus.session import Session

logger = logging.getLogger("nexus")

Event = Literal["enter", "update", "leave"]

PAGE = 500
QUEUE = 1000
LAG = 20_000
SNAPSHOT_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """A record entered, changed within, or left the query of a subscription. `prev` is the position of the
    change delivered before this one, so that a gap can be seen."""

    event: Event
    topic: str
    key: Any
    record: Record | None
    old: Record | None
    prev: int
    pos: int
    cursor: str
    actor: str | None
    run: str | None
    at: str


class Feed:
    """The change logs of an application, and who follows them."""

    def __init__(self, registry: Registry, policy: Policy, *, queue: int = QUEUE) -> None:
        self.registry = registry
        self.policy = policy
        self._queue = queue
        self._sources: list[ChangeSource] = []
        self._tails: dict[ChangeSource, _Tail] = {}
        self._closing = False
        self._on_close: list[Callable[[], None]] = []

    def add(self, source: ChangeSource) -> None:
        self._sources.append(source)

    def topics(self) -> list[str]:
        return [topic for source in self._sources for topic in source.topics()]

    def source(self, topic: str) -> ChangeSource:
        for source in self._sources:
            if source.has(topic):
                return source
        raise UnknownTopic(f"There is no topic '{topic[:80]}'.", remedy=did_you_mean(topic, self.topics()))

    def subscribe(
        self,
        session: Session,
        topic: str,
        *,
        where: object = None,
        since: str | None = None,
        snapshot: bool = False,
    ) -> Subscription:
        """A subscription to the records of `topic` that match `where`, from now, from the cursor `since`, or
        from a snapshot. Enter it to open it; then iterate.

        Raises UnknownTopic, Forbidden, InvalidFilter here; opening raises InvalidCursor and CursorExpired."""
        source = self.source(topic)
        self.check(session, topic)
        query = source.parse(topic, where, session)
        return Subscription(self, source, session, topic, query, since, snapshot, self._queue)

    def check(self, session: Session, topic: str) -> None:
        """Who may list a topic's records may follow them."""
        self.policy.check(session, self._listing(topic))

    def wake(self, source: ChangeSource) -> None:
        """Say that `source` has grown, to whoever follows it in this process: another application or event
        loop may. Only a hint: the log is what counts."""
        for tail in _TAILS.get(source, ()):
            tail.wake()

    def is_followed(self, source: ChangeSource) -> bool:
        """Whether anybody follows `source` in this process."""
        return bool(_TAILS.get(source))

    def open(self) -> None:
        """Take subscriptions, also after a `close`."""
        self._closing = False

    def close(self) -> None:
        """The server is closing: end every subscription, with its last cursor, and take no more."""
        if self._closing:
            return
        self._closing = True
        for tail in list(self._tails.values()):
            tail.close()
        for callback in tuple(self._on_close):
            callback()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the server begins to close, for channels with streams of their own; returns
        what ends that."""
        self._on_close.append(callback)
        return lambda: self._on_close.remove(callback)

    def _listing(self, topic: str) -> Operation:
        listing = self.registry.verbs(topic).get("list")
        if listing is None:
            raise UnknownTopic(f"There is no topic '{topic}' any more.")
        return listing

    def _tail(self, source: ChangeSource, position: int) -> _Tail:
        if self._closing:
            raise FeedClosed()
        tail = self._tails.get(source)
        if tail is None:
            tail = self._tails[source] = _Tail(source, position)
            _followed(source, tail)
        return tail

    def _leave(self, source: ChangeSource, subscription: Subscription) -> None:
        tail = self._tails.get(source)
        if tail is not None:
            tail.subscribers.discard(subscription)
            if not tail.subscribers:
                del self._tails[source]
                _followed(source, without=tail)
                tail.stop()


class FeedClosed(Unavailable):
    """The server is going down; the subscription can be resumed elsewhere or later from its cursor."""

    def __init__(self) -> None:
        super().__init__("The server is closing.", remedy="Connect again and resume from the last cursor.")


class Subscription:
    """An ordered stream of Changes for one session and one query; `cursor` is where it stands."""

    def __init__(
        self,
        feed: Feed,
        source: ChangeSource,
        session: Session,
        topic: str,
        query: Filter,
        since: str | None,
        snapshot: bool,
        queue: int,
    ) -> None:
        self.topic = topic
        self.session = session
        self.records: list[Record] | None = None
        self._feed = feed
        self._source = source
        self._filter = query
        self._query = cursor.digest(topic, query)
        self._since = since
        self._snapshot = snapshot
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue(queue)
        self._failure: NexusError | None = None
        self._live = False  # whether the tail hands us changes; else we read the log ourselves
        self._epoch = b""
        self._head = 0  # where the log stood at the beginning
        self._position = 0  # read from the log up to here
        self._offered = 0  # the last change that matched
        self._sent = 0  # the last change that the reader has taken

    @property
    def cursor(self) -> str:
        return cursor.issue(self._epoch, self._sent, self._query)

    async def __aenter__(self) -> Subscription:
        if self._snapshot and self._since is None:
            taken = await self._source.snapshot(self.topic, self._filter, SNAPSHOT_LIMIT, self.session)
            self.records, head = taken.records, taken.head
        else:
            head = await self._source.head(self.topic)
        self._epoch = head.epoch
        self._position = self._head = head.pos
        if self._since is not None:
            self._position = cursor.redeem(self._since, head, self._query)
        self._sent = self._offered = self._position
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._feed._leave(self._source, self)

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Raises SlowConsumer when the reader falls far behind, FeedClosed when the server ends, Forbidden
        or UnknownTopic when the session may no longer follow the topic."""
        while True:
            async for change in self._catch_up():
                yield change
            while self._live or not self._queue.empty():
                self._check()
                taken = await self._queue.get()
                if taken is not None:
                    self._check()
                    self._sent = taken.pos
                    yield taken

    def offer(self, logged: LoggedChange) -> None:
        """Take a change from the tail; for the tail only. A reader whose queue is full goes back to the log
        and catches up; one that falls too far behind even so is ended."""
        if logged.pos <= self._position:
            return
        if not self._live:
            if logged.pos - self._position > LAG:
                self.end(
                    SlowConsumer(
                        f"The subscriber to '{self.topic}' fell more than {LAG} changes behind.",
                        remedy="Connect again and resume from the last cursor.",
                    )
                )
            return
        position, offered = self._position, self._offered
        try:
            self._position = logged.pos
            change = self._seen(logged)
            if change is not None:
                self._queue.put_nowait(change)
        except asyncio.QueueFull:
            self._live, self._position, self._offered = False, position, offered
        except Exception:  # a record of another program that the filter cannot be applied to
            logger.exception("change %d of '%s' cannot be delivered", logged.pos, self.topic)
            self.end(Unavailable(f"The change {logged.pos} of '{self.topic}' cannot be read."))

    def end(self, failure: NexusError) -> None:
        """Let the reader meet `failure` next."""
        self._failure = failure
        with contextlib.suppress(asyncio.QueueFull):  # a full queue has a reader that will look anyway
            self._queue.put_nowait(None)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._feed.check(self.session, self.topic)

    async def _catch_up(self) -> AsyncIterator[Change]:
        while True:
            self._check()
            tail = self._feed._tail(self._source, self._head)
            if self._position >= tail.position:
                self._live = True
                tail.attach(self)
                return
            for logged in await self._source.read(self._position, PAGE):
                self._position = logged.pos
                if (change := self._seen(logged)) is not None:
                    self._check()
                    self._sent = change.pos
                    yield change

    def _seen(self, logged: LoggedChange) -> Change | None:
        if logged.topic != self.topic:
            return None
        was = logged.old is not None and matches(self._filter, logged.old)
        now = logged.record is not None and matches(self._filter, logged.record)
        if not was and not now:
            return None
        event: Event = "update" if was and now else "enter" if now else "leave"
        prev, self._offered = self._offered, logged.pos
        return Change(
            event=event,
            topic=self.topic,
            key=logged.key,
            record=logged.record if now else None,
            old=logged.old if was else None,
            prev=prev,
            pos=logged.pos,
            cursor=cursor.issue(self._epoch, logged.pos, self._query),
            actor=logged.actor,
            run=logged.run,
            at=logged.at,
        )


class _Tail:
    """Reads one log for all who follow it."""

    def __init__(self, source: ChangeSource, position: int) -> None:
        self.source = source
        self.position = position
        self.subscribers: set[Subscription] = set()
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        return not self._loop.is_closed()

    def attach(self, subscription: Subscription) -> None:
        self.subscribers.add(subscription)
        if not self._tasks:
            self._tasks = [
                self._loop.create_task(self._follow()),
                self._loop.create_task(self._listen()),
            ]

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # its event loop may have ended without a word
            self._loop.call_soon_threadsafe(self._grown.set)

    def close(self) -> None:
        for subscription in self.subscribers:
            subscription.end(FeedClosed())

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _follow(self) -> None:
        while True:
            self._grown.clear()
            try:
                logged = await self.source.read(self.position, PAGE)
            except Exception as failure:
                logger.exception("the change log cannot be read; its subscribers end")
                for subscription in self.subscribers:
                    subscription.end(
                        failure if isinstance(failure, NexusError) else Unavailable("The change log failed.")
                    )
                await asyncio.sleep(1)
                continue
            for change in logged:
                for subscription in tuple(self.subscribers):
                    subscription.offer(change)
                self.position = change.pos
            if len(logged) < PAGE:
                await self._grown.wait()

    async def _listen(self) -> None:
        while True:
            try:
                await self.source.changed()
            except Exception:
                logger.exception("waiting for other processes' changes failed")
                await asyncio.sleep(1)
            self._grown.set()


# Tuples that are replaced, never changed: `wake` reads from any thread.
_TAILS: weakref.WeakKeyDictionary[ChangeSource, tuple[_Tail, ...]] = weakref.WeakKeyDictionary()
_tails_lock = threading.Lock()


def _followed(source: ChangeSource, by: _Tail | None = None, *, without: _Tail | None = None) -> None:
    with _tails_lock:
        others = tuple(tail for tail in _TAILS.get(source, ()) if tail is not without and tail.alive)
        _TAILS[source] = others if by is None else (*others, by)
