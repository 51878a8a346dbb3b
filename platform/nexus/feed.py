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
from types import TracebackType
from typing import Any, Literal, TypeAlias

import msgspec

from nexus import cursor
from nexus.errors import (
    Forbidden,
    NexusError,
    SlowConsumer,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownTopic,
    did_you_mean,
)
from nexus.filters import Filter, matches
from nexus.operation import Operation
from nexus.policy import Policy
from nexus.ports import ChangeSource, LoggedChange, LogHead, Record
from nexus.registry import Registry
from nexus.session import Session
from nexus.tail import PAGE, Tail
from nexus.tail import FeedClosed as FeedClosed

logger = logging.getLogger("nexus")

Event = Literal["enter", "update", "leave"]

QUEUE = 1000
LAG = 20_000
SNAPSHOT_LIMIT = 10_000


class Change(msgspec.Struct, frozen=True):
    """A record entered, changed within, or left the query of a subscription. `prev` is the position of the
    change delivered before this one, so that a gap can be seen. Those of one transaction come one after the
    other and have the same `txn`; None where the log does not know it."""

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
    request: str | None = None
    txn: str | None = None


Alike: TypeAlias = dict[tuple[str, bytes, int], tuple[Filter, Change | None]]


class Feed:
    """The change logs of an application, and who follows them."""

    def __init__(self, registry: Registry, policy: Policy, *, queue: int = QUEUE) -> None:
        self.registry = registry
        self.policy = policy
        self._queue = queue
        self._sources: list[ChangeSource] = []
        self._tails: dict[ChangeSource, Tail] = {}
        self._closing = False
        self._on_close: list[Callable[[], None]] = []
        policy.on_change(self.review)

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
        filter: object = None,
        since: str | None = None,
        snapshot: bool = False,
    ) -> Subscription:
        """A subscription to the records of `topic` that match `filter`, from now, from the cursor `since`, or
        from a snapshot. Enter it to open it; then iterate. Or only iterate: then it is open for as long as
        that lasts, and the records of a snapshot come first, each as one that enters.

        When the session may no longer follow them, it gets `leave` for what it saw, and the error.

        Raises UnknownTopic, Forbidden, InvalidFilter here; opening raises InvalidCursor and CursorExpired."""
        source = self.source(topic)
        session = self.policy.current(session)
        self.check(session, topic)
        query = source.parse(topic, filter, session)
        return Subscription(self, source, session, topic, query, since, snapshot, self._queue)

    def check(self, session: Session, topic: str) -> None:
        """Who may list a topic's records may follow them, as long as that is so. Raises Forbidden, or
        Unauthenticated for a session that has been revoked."""
        self.policy.check(session, self._listing(topic))
        if self.policy.current(session).tenant != session.tenant:
            raise Forbidden("The session belongs to another tenant now.", remedy="Subscribe again.")

    def review(self) -> None:
        """What somebody may do has changed: look at every subscription now, and not at its next change."""
        for tail in list(self._tails.values()):
            tail.review()

    def wake(self, source: ChangeSource) -> None:
        """Say that `source` has grown, to whoever follows it in this process: another application or event
        loop may. Only a hint: the log is what counts."""
        tails = _TAILS.get(source, ())
        source.written(read_here=any(tail.alive for tail in tails))
        for tail in tails:
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

    def _tail(self, source: ChangeSource, position: int) -> Tail:
        if self._closing:
            raise FeedClosed()
        tail = self._tails.get(source)
        if tail is None:
            tail = self._tails[source] = Tail(source, position)
            _followed(source, tail)
        return tail

    async def _leave(self, source: ChangeSource, subscription: Subscription) -> None:
        tail = self._tails.get(source)
        if tail is not None:
            tail.subscribers.discard(subscription)
            if not tail.subscribers:
                del self._tails[source]
                _followed(source, without=tail)
                await tail.stop()


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
        self._entered = False
        self._live = False  # whether the tail hands us changes; else we read the log ourselves
        self._epoch = b""
        self._head = 0  # where the log stood at the beginning
        self._position = 0  # read from the log up to here
        self._offered = 0  # the last change that matched
        self._sent = 0  # the last change that the reader has taken
        self._mark = ""  # and its moment

    @property
    def cursor(self) -> str:
        return cursor.issue(self._epoch, self._sent, self._query, self._mark)

    async def __aenter__(self) -> Subscription:
        if self._snapshot and self._since is None:
            taken = await self._source.snapshot(self.topic, self._filter, SNAPSHOT_LIMIT, self.session)
            self.records, head = taken.records, taken.head
        else:
            head = await self._source.head(self.topic)
        self._epoch = head.epoch
        self._position, self._mark = head.pos, head.mark
        self._head = head.pos
        if self._since is not None:
            self._position, self._mark = cursor.redeem(self._since, head, self._query)
            await self._check_past(head)
        self._sent = self._offered = self._position
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._feed._leave(self._source, self)

    def __aiter__(self) -> AsyncIterator[Change]:
        """Raises SlowConsumer when the reader falls far behind, FeedClosed when the server ends, Forbidden,
        Unauthenticated or UnknownTopic when the session may no longer follow the topic: of Forbidden and
        Unauthenticated after a `leave`, without the record, for each that it could see until then."""
        return self._changes() if self._entered else self._opened_changes()

    async def _opened_changes(self) -> AsyncIterator[Change]:
        async with self:
            for record in self.records or ():
                yield self._told("enter", record["id"], record)
            self.records = None
            async for change in self._changes():
                yield change

    async def _changes(self) -> AsyncIterator[Change]:
        # One generator and not several around each other: each would cost on the way of every change.
        try:
            while True:
                async for change in self._catch_up():
                    yield change
                while self._live or not self._queue.empty():
                    taken = await self._queue.get()
                    self._check()
                    if taken is not None:
                        self._sent, self._mark = taken.pos, taken.at
                        yield taken
        except (Forbidden, Unauthenticated):
            async for change in self._farewell():
                yield change
            raise

    async def _farewell(self) -> AsyncIterator[Change]:
        """A `leave` for each record that was visible at the last change delivered, from what is visible now
        and what has happened since. Nothing of it is sent but the key."""
        try:
            taken = await self._source.snapshot(self.topic, self._filter, SNAPSHOT_LIMIT, self.session)
        except TooLarge:
            return  # the error that ends the subscription has to do
        keys = dict.fromkeys(record["id"] for record in taken.records)
        position = self._sent
        while position < taken.head.pos:
            logged_page = await self._source.read(position, PAGE)
            if not logged_page:
                break
            for logged in logged_page:
                position = logged.pos
                if logged.topic != self.topic or position > taken.head.pos:
                    continue
                was, now = self._matches(logged.old), self._matches(logged.record)
                if was:
                    keys[logged.key] = None
                elif now:
                    keys.pop(logged.key, None)
        for key in keys:
            yield self._told("leave", key, None)

    def _told(self, event: Event, key: Any, record: Record | None) -> Change:
        """What no change is behind: it stands where the subscription does."""
        here = self._sent
        return Change(event, self.topic, key, record, None, here, here, self.cursor, None, None, self._mark)

    def _matches(self, record: Record | None) -> bool:
        return record is not None and matches(self._filter, record)

    def review(self) -> None:
        """End when the session may no longer follow the topic; for the tail only."""
        try:
            self._check()
        except NexusError as failure:
            self.end(failure)

    async def _check_past(self, head: LogHead) -> None:
        """Raises CursorExpired when another change than the cursor's is at its position."""
        mark = head.mark
        if head.floor < self._position < head.pos:
            (found, *_) = await self._source.read(self._position - 1, 1)
            mark = found.at
        elif self._position == head.floor:
            return  # that change is no longer kept
        if self._mark and mark and mark != self._mark:
            raise cursor.restored()

    def offer(self, logged: LoggedChange, alike: Alike) -> None:
        """Take a change from the tail; for the tail only. `alike` is what others have made of this very
        change. A reader whose queue is full goes back to the log and catches up; one that falls too far
        behind even so is ended."""
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
            change = self._shared(logged, alike)
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
                    self._sent, self._mark = change.pos, change.at
                    yield change

    def _shared(self, logged: LoggedChange, alike: Alike) -> Change | None:
        """Of subscribers to one query who stand at one place, the first makes the change for all."""
        stands = (self._query, self._epoch, self._offered)
        known = alike.get(stands)
        if known is not None and known[0] == self._filter:
            if known[1] is not None:
                self._offered = logged.pos
            return known[1]
        change = self._seen(logged)
        alike[stands] = (self._filter, change)
        return change

    def _seen(self, logged: LoggedChange) -> Change | None:
        if logged.topic != self.topic:
            return None
        was, now = self._matches(logged.old), self._matches(logged.record)
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
            cursor=cursor.issue(self._epoch, logged.pos, self._query, logged.at),
            actor=logged.actor,
            run=logged.run,
            at=logged.at,
            request=logged.request,
            txn=logged.txn,
        )


# Tuples that are replaced, never changed: `wake` reads from any thread.
_TAILS: weakref.WeakKeyDictionary[ChangeSource, tuple[Tail, ...]] = weakref.WeakKeyDictionary()
_tails_lock = threading.Lock()


def _followed(source: ChangeSource, by: Tail | None = None, *, without: Tail | None = None) -> None:
    with _tails_lock:
        others = tuple(tail for tail in _TAILS.get(source, ()) if tail is not without and tail.alive)
        _TAILS[source] = others if by is None else (*others, by)
