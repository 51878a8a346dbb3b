"""Serve an application with uvicorn until told to stop; then let everybody finish, in time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import uvicorn

from nexus.app import Nexus
from nexus.config import is_loopback
from nexus.errors import ConfigurationError
from nexus.request import log_requests
from nexus_channels.host import Application
from nexus_channels.mcp.channel import McpChannel
from nexus_channels.web.protocol import Protocol, protocol_for

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LONGEST_FRAME = 4
"""Websocket frames over the body limit are answered with an error, up to so many times the limit;
beyond that the protocol closes the connection."""
_STUCK_PEER = 60_000
"""Milliseconds after which a peer that takes nothing of what is sent to it counts as gone."""
_AFTER_CANCEL = 0.5
_TICKS = 10  # of uvicorn, in a second
_AFTER_GRACE = 1.2
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def serve(app: Nexus, *, host: str | None = None, port: int | None = None) -> None:
    """Serve until interrupted or terminated; whoever is being served then has `settings.shutdown`
    seconds to end, after `settings.drain` in which it still serves. A second signal ends the process at once.

    Raises ConfigurationError for a host that can be reached from elsewhere when no API key is set,
    and for an address that cannot be listened on."""
    log_requests()
    if app.settings.access_log:
        logging.getLogger("nexus.access").setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s [%(request)s]: %(message)s")
    with contextlib.ExitStack() as stack:
        listeners = _listen_all(app, host, port, stack)
        server = _Server(app, listeners, announce=_announce)
        server.run(sockets=listeners)
        server.finished()


@asynccontextmanager
async def running_server(app: Nexus, *, host: str | None = None, port: int | None = 0) -> AsyncIterator[str]:
    """Serve in the running event loop for as long as the context is open; gives the base URL."""
    with contextlib.ExitStack() as stack:
        listeners = _listen_all(app, host, port, stack)
        started = asyncio.Event()
        server = _Server(app, listeners, announce=lambda _: started.set(), signals=False)
        serving = asyncio.create_task(server.serve(sockets=listeners))
        serving.add_done_callback(lambda _: started.set())
        try:
            await started.wait()
            if not serving.done():
                yield server.base_url
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """uvicorn's server with a shutdown of our own: see `shutdown`."""

    def __init__(
        self,
        app: Nexus,
        listeners: list[socket.socket],
        *,
        announce: Callable[[_Server], None],
        signals: bool = True,
    ) -> None:
        self.app = app
        mcp_port = listeners[1].getsockname()[1] if len(listeners) > 1 else None
        served = Application(app, mcp_port=mcp_port)
        self.host = served.host
        self.base_url = _url(listeners[0])
        self.mcp_url = _url(listeners[1]) if len(listeners) > 1 else ""
        self._announce = announce
        self._signals = signals
        self._guard = served
        self._protocol = protocol_for(app.settings.receive_timeout, app.settings.body_limit)
        self._deadline: threading.Timer | None = None
        super().__init__(
            uvicorn.Config(
                served,
                loop="uvloop" if sys.platform != "win32" else "asyncio",
                http=self._protocol,
                ws="websockets-sansio",
                ws_max_size=app.settings.body_limit * _LONGEST_FRAME,
                ws_per_message_deflate=False,
                lifespan="off",  # entered around everything: failures come out as they are
                interface="asgi3",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self.host.running():
            await super()._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce(self)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self._check_times()
        return await super().on_tick(counter)

    def _check_times(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.check_time(now)

    async def _drain(self) -> None:
        """Serve on for a while, so that who sends requests here can see that it is over, and stop."""
        self._guard.draining = self._protocol.draining = True
        until = asyncio.get_running_loop().time() + self.app.settings.drain
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self._check_times()
            await asyncio.sleep(min(left, 1.0))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say for as long as is set that it ends. Then take no more connections and close the feed, which
        tells the channels; let what runs finish within the grace, and cancel the rest, before anything that
        it uses is closed."""
        await self._drain()
        for server in self.servers:
            server.close()
        websocket = self.config.ws_protocol_class
        for connection in list(self.server_state.connections):
            if websocket is None or not isinstance(connection, websocket):
                connection.shutdown()
        self.app.feed.close()
        now = asyncio.get_running_loop().time
        until = now() + self.app.settings.shutdown
        while (
            tasks := self._unfinished()
        ) and now() < until:  # with one may begin the next of its connection
            await asyncio.wait(tasks, timeout=until - now(), return_when=asyncio.FIRST_COMPLETED)
        if tasks := self._unfinished():
            self._guard.closing = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_AFTER_CANCEL)
        await super().shutdown(sockets)

    def _unfinished(self) -> set[asyncio.Task[Any]]:
        """Requests, and runs of workflows in the background; of these no more begin."""
        runs = self.app.runtime.runs
        if runs is None:
            return set(self.server_state.tasks)
        runs.close_door()
        return self.server_state.tasks | runs.background

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does not raise the signals again afterwards, as uvicorn does: they end in success."""
        if not self._signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        original = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in original.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True
        # Threads cannot be cancelled: a handler that blocks in one would hold up the end.
        patience = self.app.settings.drain + self.app.settings.shutdown + _AFTER_GRACE
        self._deadline = threading.Timer(patience, _end)
        self._deadline.daemon = True
        self._deadline.start()

    def finished(self) -> None:
        """The end came in time."""
        if self._deadline is not None:
            self._deadline.cancel()


def _end() -> None:
    print("Something did not end in time; it was left behind.", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _listen_all(
    app: Nexus, host: str | None, port: int | None, stack: contextlib.ExitStack
) -> list[socket.socket]:
    """The port of everything, and the one that MCP has of its own, if any."""
    host = app.settings.host if host is None else host
    ports = [app.settings.port if port is None else port]
    if app.settings.mcp_port is not None:
        if McpChannel.name not in app.channels:
            raise ConfigurationError("mcp_port is given, and MCP is not served.", remedy="Leave it out.")
        ports.append(app.settings.mcp_port)
    return [stack.enter_context(_listen(app, host, one)) for one in ports]


def _listen(app: Nexus, host: str, port: int) -> socket.socket:
    if app.sessions.open and not is_loopback(host):
        raise ConfigurationError(
            f"Without an API key, '{host}' would let in everybody who can reach it.",
            remedy="Set NEXUS_API_KEY, or listen on 127.0.0.1.",
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as failure:
        raise _unusable(host, port, failure) from failure
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_PEER)
        listener.bind(address)
        listener.listen(2048)  # so that a port which is taken is found here, not later
    except OSError as failure:
        listener.close()
        raise _unusable(host, port, failure) from failure
    return listener


def _unusable(host: str, port: int, failure: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"Cannot listen on {host}, port {port}: {failure.strerror}.",
        remedy="Choose another with --port or NEXUS_PORT; 0 takes any that is free.",
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = _ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(server: _Server) -> None:
    gc.freeze()  # what is loaded by now stays: the collector need not look at it again
    print(f"Serving {server.app.title} on {server.base_url}", file=sys.stderr)
    for channel in server.host.channels:
        print(f"  {channel.hint(server.base_url)}", file=sys.stderr)
    if server.mcp_url:
        print(f"  {'MCP':<10} {server.mcp_url}{McpChannel.path} (the same)", file=sys.stderr)
    print(f"  {'CLI':<10} {_cli_hint(server.app)}", file=sys.stderr, flush=True)


def _cli_hint(app: Nexus) -> str:
    """A command that works in this folder. Which application `nexus` was given is in the settings."""
    given = app.settings.app
    program = _program()
    if given and given != os.environ.get("NEXUS_APP") and not os.path.exists("app.py"):
        program += f" --app {os.path.relpath(given) if '/' in given else given}"
    registry = app.registry
    for resource in registry.resources():
        if "list" in registry.verbs(resource):
            return f"{program} {resource} list"
    return f"{program} --help"


def _program() -> str:
    """What a shell calls our `nexus`: in an environment that is not activated, its path."""
    installed = os.path.join(os.path.dirname(sys.executable), "nexus")
    if shutil.which("nexus") or not os.path.exists(installed):
        return "nexus"
    return os.path.relpath(installed)
