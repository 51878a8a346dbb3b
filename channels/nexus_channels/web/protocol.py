"""The connection: uvicorn's, with bounds to what a client may send and to how long it may take, and with
answers in our own form to what cannot be read."""

from __future__ import annotations

import http
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nexus.errors import HeadersTooLarge, Malformed, NexusError, SlowRequest, TooLarge
from nexus.request import new_request
from nexus_channels.asgi import has_body, reply_problem

HEADERS = 32_768
"""Bytes of the header fields of a request."""
FIELDS = 100
_LINE = 128  # the method, the version, and what is between them
_LINGER = 2.0
"""Seconds for which a client that is still sending is read from: closed at once, the connection would be
reset before the client has read the answer."""


class Protocol(HttpToolsProtocol):
    """`receive_timeout` and `largest_url` are set on a subclass, which uvicorn makes the connections of."""

    receive_timeout = 0.0
    largest_url = 1 << 20
    draining = False
    """Set on it, too, by a server that ends soon: connections are not kept."""

    flow: FlowControl

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.url = b""
        self._chunk = 0
        self._head = 0  # bytes that have come of a request whose headers are not complete
        self._in_head = True
        self._messages = 0
        self._failure: NexusError | None = None
        self._refused = False
        self._active: RequestResponseCycle | None = None
        self._since: float | None = self.loop.time()  # when what has not come whole began to come

    # What comes

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._since is None:
            self._since = self.loop.time()
        self._unset_keepalive_if_required()
        messages, self._chunk = self._messages, len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if not self._should_upgrade():  # it is answered, as if it had not been asked for
                self._refused = True
                self.cycle.keep_alive = False
            elif self._pending():
                self._refuse(Malformed("A websocket cannot begin before the answers that are still to come."))
            else:
                self._since = None
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError:
            self._refuse(self._failure or Malformed("The request is not HTTP/1.1 as it must be."))
            return
        if self._in_head:
            # What of the data belongs to the next message is not known; it is less than one reading.
            self._head = self._head + len(data) if self._messages == messages else 0
            if self._head > HEADERS + _LINE + len(self.url):
                self._refuse(_too_many_headers())
            elif len(self.url) > self.largest_url:
                self._refuse(self._long_url())

    def on_message_begin(self) -> None:
        if self._since is None:
            self._since = self.loop.time()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # what follows a body in chunks must not be taken for a header that was checked
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        self._failure = Malformed("The address is none.", remedy="Percent-encode what is not ASCII.")
        super().on_headers_complete()
        self._failure, self._in_head = None, False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._messages += 1
        self._in_head, self._head, self._since = True, 0, None

    def _check_head(self) -> None:
        failure: NexusError | None = None
        fields = self.headers
        long = self._head + self._chunk > HEADERS  # or else there is nothing to be added up
        if len(fields) > FIELDS or (
            long and sum(len(name) + len(value) + 4 for name, value in fields) > HEADERS
        ):
            failure = _too_many_headers()
        elif len(self.url) > self.largest_url:
            failure = self._long_url()
        elif self.parser.should_upgrade() and not self._should_upgrade():
            failure = self._useless_upgrade()
        if failure is not None:
            self._failure = failure
            raise ValueError(failure.detail)

    def _useless_upgrade(self) -> NexusError | None:
        """What comes after the headers is not read where another protocol is asked for."""
        if self.parser.get_method() != b"CONNECT" and not has_body(dict(self.scope)):
            return None
        return Malformed("There is nothing to upgrade to but websocket.", remedy="Do not ask for it.")

    def _long_url(self) -> NexusError:
        return TooLarge(f"The address is longer than {self.largest_url} bytes.")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        if self.draining and not self.pipeline:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    # What does not come, or cannot be read

    def check_time(self, now: float) -> None:
        """End what has not come whole in time. Whoever is not read from, since the application is behind, is
        not late."""
        if self._since is None or self._refused or not self.receive_timeout:
            return
        if self.flow.read_paused:
            self._since = now
        elif now - self._since <= self.receive_timeout:
            return
        elif self._in_head and not (self._head or self._messages):
            self.transport.close()  # nothing was asked
        else:
            limit = f"{self.receive_timeout:g}"
            self._refuse(SlowRequest(f"The request had not come whole after {limit} seconds."))

    def _pending(self) -> bool:
        return self._last_pending() is not None

    def _refuse(self, failure: NexusError) -> None:
        """Answer what cannot be read, after which nothing can be: the connection ends. What was asked before
        is answered first, and where an answer has begun there cannot be another."""
        self._refused, self._since = True, None
        self.flow.resume_reading()
        broken = None if self._in_head else self.cycle
        if broken is not None and broken is not self._active:
            self.pipeline.popleft()  # its turn has not come
            broken = None
        if broken is None:
            if (waited := self._last_pending()) is not None:
                waited.keep_alive = False
                return
        else:
            broken.disconnected = True
            broken.message_event.set()
            if broken.response_started:
                self.transport.close()
                return
        self._say(failure, broken)

    def _last_pending(self) -> RequestResponseCycle | None:
        if self.pipeline:
            return self.pipeline[0][0]
        if self._active is not None and not self._active.response_complete:
            return self._active
        return None

    def _say(self, failure: NexusError, cycle: RequestResponseCycle | None) -> None:
        code, body, headers = reply_problem(failure)
        request = new_request() if cycle is None else str(cycle.scope.get("nexus.request", new_request()))
        lines = [
            b"HTTP/1.1 %d %s" % (code, http.HTTPStatus(code).phrase.encode()),
            *(b"%s: %s" % header for header in [*self.server_state.default_headers, *headers]),
            b"x-request-id: " + request.encode(),
            b"content-length: %d" % len(body),
            b"connection: close",
            b"",
            body,
        ]
        self.logger.info("%s: %s (%s)", failure.title, failure.detail, request)
        self.transport.write(b"\r\n".join(lines))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(_LINGER, self.transport.close)
        else:
            self.transport.close()


def protocol_for(receive_timeout: float, largest_url: int) -> type[Protocol]:
    """What uvicorn is to make the connections of a server of."""
    return type(
        "BoundedProtocol", (Protocol,), {"receive_timeout": receive_timeout, "largest_url": largest_url}
    )


def _too_many_headers() -> NexusError:
    return HeadersTooLarge(
        f"There are more than {FIELDS} header fields, or more than {HEADERS} bytes of them.",
        remedy="Send fewer.",
    )
