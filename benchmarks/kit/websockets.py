"""Websockets by hand, as little as counting and reading frames takes: thousands of them in one process."""

from __future__ import annotations

import resource
import select
import socket
import time
from typing import Any

import msgspec

_WHOLE = 1 << 18
_PING = 0x89
_PONG = 0x8A


class Websocket:
    """One connection. Frames of a server are neither masked nor, here, in several parts."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.received = b""
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.received:
            self._take()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"no websocket: {head[:100]!r}")

    def send(self, message: object) -> None:
        """A JSON object in one short frame."""
        text = msgspec.json.encode(message)
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + size + bytes(4) + text)  # masked with zeros

    def receive(self) -> Any:
        """The next frame's JSON."""
        while not (frames := self.frames(1)):
            self._take()
        return msgspec.json.decode(frames[0])

    async def arrives(self, loop: Any) -> tuple[Any, float]:
        """The next frame's JSON and when it came; the socket does not block by now."""
        while not (frames := self.frames(1)):
            data = await loop.sock_recv(self.socket, _WHOLE)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self.received += data
        return msgspec.json.decode(frames[0]), time.perf_counter()

    def frames(self, most: int = 1_000_000) -> list[bytes]:
        """Whole frames that are here already; pings are answered."""
        found: list[bytes] = []
        data, begin = self.received, 0
        while len(found) < most and len(data) >= begin + 2:
            size, start = data[begin + 1], begin + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(data[start : start + width], "big")
                start += width
            if len(data) < start + size:
                break
            if data[begin] == _PING:
                payload = data[start : start + size]
                self.socket.sendall(bytes([_PONG, 0x80 | size]) + bytes(4) + payload)
            else:
                found.append(data[start : start + size])
            begin = start + size
        self.received = data[begin:]
        return found

    def _take(self) -> None:
        data = self.socket.recv(_WHOLE)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self.received += data

    def close(self) -> None:
        self.socket.close()


def count_frames(sockets: list[Websocket], wanted: int, patience: float = 60.0) -> None:
    """Return when each has received so many more frames. Raises TimeoutError."""
    poll = select.epoll()
    by_number = {each.socket.fileno(): each for each in sockets}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    missing = dict.fromkeys(by_number, wanted)
    until = time.monotonic() + patience
    try:
        while missing:
            ready = poll.poll(1)
            if not ready and time.monotonic() > until:
                left = sum(missing.values())
                raise TimeoutError(f"{left} frames of {wanted * len(sockets)} did not come")
            for number, _ in ready:
                each = by_number[number]
                each._take()
                missing[number] -= len(each.frames())
                if missing[number] <= 0:
                    del missing[number]
                    poll.unregister(number)
    finally:
        poll.close()


def answer_pings(sockets: list[Websocket]) -> None:
    """A server gives up connections on which its pings are not answered: to be called once in a while."""
    poll = select.epoll()
    by_number = {each.socket.fileno(): each for each in sockets}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    for number, _ in poll.poll(0, max(1, len(sockets))):
        each = by_number[number]
        each._take()
        if each.frames():
            raise AssertionError("a change came that nobody has made")
    poll.close()


def allow_many() -> None:
    """Raise the limit of open files as far as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
