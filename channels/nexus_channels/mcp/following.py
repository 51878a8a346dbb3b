"""Resources that a client follows: driven by the change feed, under the rights of the session that asked."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from mcp.shared.subscriptions import ResourceUpdated

from nexus.errors import (
    CursorExpired,
    Forbidden,
    InvalidCursor,
    InvalidInput,
    NexusError,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnknownTopic,
    did_you_mean,
)
from nexus.feed import FeedClosed, Subscription
from nexus.runtime import Runtime
from nexus.session import Session
from nexus_channels.mcp import resources
from nexus_channels.mcp.outbox import Outbox

logger = logging.getLogger("nexus")

PER_CLIENT = 100
PER_SESSION = 1000
_AGAIN = 1.0  # seconds after which a log that could not be read is asked again

Ended = Callable[[NexusError], None]


class Following:
    """One resource, followed for one session from the moment at which `begin` returned; where it stands
    outlasts the subscription to the feed, which can be given up and taken up again."""

    def __init__(self, runtime: Runtime, session: Session, uri: str) -> None:
        """Raises NotFound, InvalidArguments."""
        self.uri = uri
        self.session = session
        self._runtime = runtime
        self._resource = resources.find(runtime.registry, uri)
        self._cursor: str | None = None

    async def begin(self) -> None:
        """Raises NexusError when the session may not read the resource, it is not there, or cannot be
        followed."""
        feed, topic = self._runtime.feed, self._resource.name
        try:
            feed.source(topic)
        except UnknownTopic:
            raise Unavailable(
                f"'{self.uri[:200]}' cannot be followed: no log is kept of changes to it.",
                remedy="Read it again when you need it.",
            ) from None
        self.session = self._runtime.policy.current(self.session)
        async with self._subscription() as subscription:
            self._cursor = subscription.cursor
        await self._resource.read(self._runtime, self.session)

    async def run(self, changed: Callable[[], None]) -> None:
        """Call `changed` when the resource may show something else; until the server closes. Where the feed
        fails it is taken up again where it stood. Raises Forbidden, Unauthenticated, NotFound or UnknownTopic
        when the resource may not be read any more or has gone, after a last call."""
        while True:
            try:
                async with self._subscription() as subscription:
                    async for change in subscription:
                        self._check()
                        self._cursor = change.cursor
                        changed()
            except FeedClosed:
                return
            except (CursorExpired, InvalidCursor):
                self._cursor = None
                changed()
            except (Forbidden, Unauthenticated, NotFound, UnknownTopic):
                changed()  # whoever reads it again is told why
                raise
            except NexusError as failure:
                logger.warning("'%s' cannot be followed for now: %s", self.uri, failure)
                await asyncio.sleep(_AGAIN)

    def _subscription(self) -> Subscription:
        feed, found = self._runtime.feed, self._resource
        feed.check(self.session, found.name)  # also when it is taken up again: as the one that it was then
        return feed.subscribe(self.session, found.name, filter=found.where, since=self._cursor)

    def _check(self) -> None:
        """The feed asks whether the session may list the records; a record is read by another right."""
        self._runtime.policy.check(self.session, self._resource.reading)


class Followings:
    """All that one client follows. `session_counts` is shared among clients. `ended` is called for what the
    client may not follow any more."""

    def __init__(
        self, runtime: Runtime, outbox: Outbox, session_counts: Counter[str], ended: Ended | None = None
    ) -> None:
        self._runtime = runtime
        self._outbox = outbox
        self._counts = session_counts
        self._ended = ended
        self._known: dict[str, Following] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running = False

    async def add(self, session: Session, uri: str) -> None:
        """Follow it from now on. Raises NexusError."""
        following = Following(self._runtime, session, uri)
        self._take(following)
        try:
            await following.begin()
        except BaseException:
            self._give_back(following)
            raise
        if self._running and self._known.get(uri) is following:
            self._start(following)

    def remove(self, uri: str) -> None:
        """Raises NotFound for what is not followed."""
        following = self._known.get(uri)
        if following is None:
            raise NotFound(f"'{uri[:200]}' is not subscribed to.", remedy=did_you_mean(uri, self._known))
        self._give_back(following)

    def start(self) -> None:
        """Read the feed, each from where it stands."""
        if not self._running:
            self._running = True
            for following in tuple(self._known.values()):
                self._start(following)

    def stop(self) -> None:
        """Leave the feed, and remember where each stands."""
        self._running = False
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def all_changed(self) -> None:
        for uri in self._known:
            self._outbox.put(ResourceUpdated(uri))

    def close(self) -> None:
        self.stop()
        for following in tuple(self._known.values()):
            self._give_back(following)

    def _take(self, following: Following) -> None:
        uri, session_id = following.uri, following.session.id
        before = self._known.get(uri)
        if before is not None:
            self._give_back(before)
        if len(self._known) >= PER_CLIENT:
            raise _too_many(f"This client has {PER_CLIENT}")
        if self._counts[session_id] >= PER_SESSION:
            raise _too_many(f"Clients of this session have {PER_SESSION}")
        self._counts[session_id] += 1
        self._known[uri] = following

    def _give_back(self, following: Following) -> None:
        if self._known.get(following.uri) is not following:
            return
        del self._known[following.uri]
        if (task := self._tasks.pop(following.uri, None)) is not None:
            task.cancel()
        self._counts[following.session.id] -= 1
        if not self._counts[following.session.id]:
            del self._counts[following.session.id]

    def _start(self, following: Following) -> None:
        self._tasks[following.uri] = asyncio.create_task(self._run(following))

    async def _run(self, following: Following) -> None:
        event = ResourceUpdated(following.uri)
        try:
            await following.run(lambda: self._outbox.put(event))
        except NexusError as failure:
            logger.info("'%s' is not followed any more: %s", following.uri, failure)
            self._end(following, failure)
        except Exception:
            logger.exception("following '%s' failed", following.uri)
            self._end(following, NexusError("Following failed.", remedy="The server's log says why."))

    def _end(self, following: Following, failure: NexusError) -> None:
        self._tasks.pop(following.uri, None)
        self._give_back(following)
        if self._ended is not None:
            self._ended(failure)


def _too_many(who: str) -> InvalidInput:
    return InvalidInput(f"{who} subscriptions to resources already.", remedy="Unsubscribe from some first.")
