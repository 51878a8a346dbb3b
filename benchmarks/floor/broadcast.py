"""A raw ASGI application that sends what is posted to every websocket: no log, filters, rights or resuming.

python -m benchmarks.floor.broadcast PORT
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

_sends: set[Any] = set()


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()  # what it asks for
        _sends.add(send)
        await send({"type": "websocket.send", "text": '{"type":"ready"}'})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        _sends.discard(send)
    elif scope["type"] == "http":
        text = (await receive())["body"].decode()
        for one in tuple(_sends):
            await one({"type": "websocket.send", "text": text})
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})


if __name__ == "__main__":
    uvicorn.run(
        application,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
