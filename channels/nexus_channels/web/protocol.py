"""The connection: uvicorn's, with bounds to what a client may send and to how long it may take, and with
answers in our own form to what cannot be read."""

from __future__ import annotations

import functools
import http
from typing import Any, NoReturn

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from nexus.errors import HeadersTooLarge, Malformed, NexusError, SlowRequest, TooLarge
from nexus.request import new_request
from nexus_channels.asgi import WHOLE, Header, answer, has_body, reply_problem

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
        self._unknown = 0  # bytes of headers or trailers that have come and are not complete; -1 in a body
        self._in_head = True
        self._messages = 0
        self._failure: NexusError | None = None
        self._refused = False
        self._since: float | None = self.loop.time()  # when what has not come whole began to come
        self._idle: float | None = None  # since when everything is answered

    # What comes. Most requests come in one piece and have no body: nothing is added up for those.

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._since is None:
            self._since = self.loop.time()
        self._idle = None
        messages, self._chunk = self._messages, len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return
        except httptools.HttpParserError:
            self._refuse(self._failure or Malformed("The request is not HTTP/1.1 as it must be."))
            return
        if self._messages != messages:
            self._unknown = 0  # what of the data belongs to the next message is less than one reading
        elif self._unknown >= 0:
            self._unknown += len(data)
            if self._unknown > HEADERS + _LINE + len(self.url):
                self._refuse(_too_many_headers())
            elif len(self.url) > self.largest_url:
                self._refuse(self._long_url())
        else:
            self._unknown = 0  # from now on, until more of a body comes

    def on_headers_complete(self) -> None:
        if len(self.headers) > FIELDS or self._unknown + self._chunk > HEADERS:
            self._check_head()
        before = self._last_pending() if self.draining else None
        if self.parser.should_upgrade():
            self._check_upgrade()
            HttpToolsProtocol.on_headers_complete(self)
        else:
            HttpToolsProtocol.on_headers_complete(self)
            self.scope["extensions"] = {WHOLE: {"send": functools.partial(_send_whole, self.cycle)}}
            self.headers = []  # what follows a body must not be taken for a header that was checked
        self._unknown, self._in_head = -1, False
        if self.draining:
            self.cycle.keep_alive = False
            if before is not None:
                before.keep_alive = True  # until what has come behind it is answered, too

    def on_body(self, body: bytes) -> None:
        self._unknown = -1
        super().on_body(body)

    def on_message_complete(self) -> None:
        HttpToolsProtocol.on_message_complete(self)
        self._messages += 1
        self._in_head, self._since = True, None

    def on_response_complete(self) -> None:
        """As uvicorn's, but that whoever asks nothing more is noticed by `check_time`, without a timer for
        each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle = self.loop.time()

    def _check_head(self) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > FIELDS or size > HEADERS:
            self._fail(_too_many_headers())
        if len(self.url) > self.largest_url:
            self._fail(self._long_url())

    def _check_upgrade(self) -> None:
        """What comes after the headers is not read where another protocol is asked for."""
        tunnel = self.parser.get_method() == b"CONNECT"
        if not self._should_upgrade() and (tunnel or has_body(dict(self.scope))):
            self._fail(
                Malformed("There is nothing to upgrade to but websocket.", remedy="Do not ask for it.")
            )

    def _fail(self, failure: NexusError) -> NoReturn:
        """Leave the parser, which has no other way out."""
        self._failure = failure
        raise ValueError(failure.detail)

    def _upgrade(self) -> None:
        if not self._should_upgrade():  # it is answered, as if it had not been asked for
            self._refused = True
            self.cycle.keep_alive = False
        elif self._last_pending() is not None:
            self._refuse(Malformed("A websocket cannot begin before the answers that are still to come."))
        else:
            self._since = None
            self.handle_websocket_upgrade()

    def _long_url(self) -> NexusError:
        return TooLarge(f"The address is longer than {self.largest_url} bytes.")

    # What does not come, or cannot be read

    def check_time(self, now: float) -> None:
        """End what has not come whole in time. Whoever is not read from, since the application is behind, is
        not late."""
        if self._idle is not None and now - self._idle > self.timeout_keep_alive:
            self.timeout_keep_alive_handler()
        if self._since is None or self._refused or not self.receive_timeout:
            return
        if self.flow.read_paused:
            self._since = now
        elif now - self._since <= self.receive_timeout:
            return
        elif self._in_head and not (self._unknown or self._messages):
            self.transport.close()  # nothing was asked
        else:
            limit = f"{self.receive_timeout:g}"
            self._refuse(SlowRequest(f"The request had not come whole after {limit} seconds."))

    def _refuse(self, failure: NexusError) -> None:
        """Answer what cannot be read, after which nothing can be: the connection ends. What was asked before
        is answered first, and where an answer has begun there cannot be another."""
        self._refused, self._since = True, None
        self.flow.resume_reading()
        broken = None if self._in_head else self.cycle
        if broken is not None and self.pipeline:  # its turn has not come

            async def refusing(scope: Any, receive: Any, send: Any) -> None:
                status, body, headers = reply_problem(failure)
                await answer(send, (status, body, [*headers, (b"x-request-id", new_request().encode())]))

            broken.keep_alive = False
            self.pipeline[0] = (broken, refusing)
            return
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
        newest: RequestResponseCycle | None = self.cycle
        return None if newest is None or newest.response_complete else newest

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


def _send_whole(cycle: RequestResponseCycle, status: int, headers: list[Header], body: bytes) -> bool:
    """What uvicorn does with the two messages of a response, where nothing is out of the ordinary. The
    headers must say how long the body is."""
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_started or not cycle.keep_alive:
        return False
    lines = [b"%b: %b\r\n" % header for header in cycle.default_headers]
    lines += [b"%b: %b\r\n" % header for header in headers]
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise RuntimeError("A header of the response would be more than one line.")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
    cycle.message_event.set()
    cycle.on_response()
    return True


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
