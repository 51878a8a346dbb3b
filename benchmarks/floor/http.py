"""A raw ASGI application over items: no framework, no policy, no more validation than decoding.

python -m benchmarks.floor.http PORT URL
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import uvicorn

from benchmarks.floor.items import Items, NewItem, Restocked

_JSON = (b"content-type", b"application/json")
_COLLECTION = "/api/items"
_encode = msgspec.json.Encoder().encode
_new = msgspec.json.Decoder(NewItem).decode
_restocked = msgspec.json.Decoder(Restocked).decode


class Application:
    def __init__(self, url: str) -> None:
        self._items = Items(url)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await self._items.open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._items.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        try:
            status, body = await self._reply(scope, receive)
        except (msgspec.DecodeError, ValueError) as failure:
            status, body = 400, _encode({"error": str(failure)})
        headers = [_JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Any, receive: Any) -> tuple[int, bytes]:
        path, method = scope["path"], scope["method"]
        if path == _COLLECTION:
            if method == "POST":
                return 201, _encode(await self._items.create(_new((await receive())["body"])))
            query = dict(parse_qsl(scope["query_string"].decode()))
            limit, offset = int(query.get("limit", 100)), int(query.get("offset", 0))
            records = await self._items.page(limit, offset)
            page = {"records": records, "count": len(records), "limit": limit, "offset": offset}
            return 200, _encode(page)
        if not path.startswith(_COLLECTION + "/"):
            return 404, b"{}"
        key = int(path[len(_COLLECTION) + 1 :])
        if method == "PATCH":
            item = await self._items.restock(key, _restocked((await receive())["body"]))
        else:
            item = await self._items.get(key)
        return (404, b"{}") if item is None else (200, _encode(item))


if __name__ == "__main__":
    uvicorn.run(
        Application(sys.argv[2]),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
