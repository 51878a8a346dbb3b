"""All records of a list, however many: page after page, by cursor, in the memory of one page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Send

from nexus.arguments import pointer
from nexus.errors import InvalidArguments, Problem
from nexus.operation import Operation
from nexus_channels.rest import csv_rows
from nexus_channels.rest.forms import Form

_PAGE = 500
_WHOLE = ("count", "offset")
_encode_lines = msgspec.json.Encoder().encode_lines

Invoke = Callable[[dict[str, object]], Awaitable[Any]]


class Streamed:
    """An answer that is sent while it is read. A failure after the beginning ends the connection, so that the
    client cannot take a part for the whole."""

    def __init__(
        self,
        operation: Operation,
        form: Form,
        media: str,
        given: dict[str, object],
        invoke: Invoke,
        receive: Receive,
    ) -> None:
        self._operation = operation
        self._form = form
        self._media = media
        self._given = given
        self._invoke = invoke
        self._receive = receive
        self._left = given.get("limit")

    async def begin(self) -> Streamed:
        """Read the first page: what is wrong with the arguments is said before anything is sent."""
        for name in _WHOLE:
            if name in self._given:
                detail = f"'{name}' is for pages, and this answer has all records"
                problem = Problem(InvalidArguments.TYPE, pointer(name), detail)
                raise InvalidArguments(self._operation.name, [problem])
        if "aggregate" not in self._given:
            self._given.setdefault("cursor", "")
        self._page = await self._next(self._given)
        return self

    async def send(self, send: Send, *, head: bool) -> None:
        media = self._media + ("; charset=utf-8; header=present" if self._form == "csv" else "")
        headers = [(b"content-type", media.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if head:
            await send({"type": "http.response.body", "body": b""})
            return
        leaving = asyncio.ensure_future(self._left_by_client())
        try:
            await self._pages(send, leaving)
        finally:
            leaving.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _pages(self, send: Send, leaving: asyncio.Future[None]) -> None:
        names = self._names()
        if self._form == "csv":
            await send({"type": "http.response.body", "body": csv_rows.header(names), "more_body": True})
        while not leaving.done():
            records = self._page.records
            body = csv_rows.lines(records, names) if self._form == "csv" else _encode_lines(records)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            following = getattr(self._page, "next", None)
            if not following or self._left == 0:
                return
            self._page = await self._next({**self._given, "cursor": following})

    async def _next(self, given: dict[str, object]) -> Any:
        if "aggregate" in given:
            return await self._invoke(given)
        size = _PAGE if self._left is None else min(_PAGE, int(str(self._left)))
        page = await self._invoke({**given, "limit": size})
        if self._left is not None:
            self._left = int(str(self._left)) - len(page.records)
        return page

    def _names(self) -> list[str]:
        """The columns: those of the first record, or else those that there would be."""
        records = self._page.records
        if records:
            first = records[0]
            return list(first if isinstance(first, Mapping) else first.__struct_fields__)
        wanted = self._given.get("fields")
        if wanted is None:
            return list(self._operation.details.fields)
        named = wanted.split(",") if isinstance(wanted, str) else wanted
        return [str(name).strip() for name in named] if isinstance(named, list) else []

    async def _left_by_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
