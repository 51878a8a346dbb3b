"""What the driver alone does for an operation of ours: its statements and parameters, with its own calls."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

Work = Callable[[], Awaitable[Any]]


async def captured(work: Work, dialect: Any) -> Work:
    """The statements that `work` sends, to be sent again on the very connection that they were sent on: on
    SQLite the core that its thread happens to run on makes a difference of a factor two. Two sets of
    parameters in turn: a database may see that an update changes nothing, and write nothing."""
    sent: list[tuple[str, Any]] = []
    drivers: list[Any] = []
    connection = await dialect.open_reader()
    await connection.close()
    kind = type(connection)
    originals = {name: getattr(kind, name) for name in ("fetch", "execute")}

    def spy(original: Any) -> Any:
        async def spied(self: Any, sql: str, parameters: Any = ()) -> Any:
            if self.caller is not None:  # else it is the care for the change log
                sent.append((sql, parameters))
                drivers.append(self._driver)
            return await original(self, sql, parameters)

        return spied

    for name, original in originals.items():
        setattr(kind, name, spy(original))
    try:
        await work()
        once = len(sent)
        await work()
    finally:
        for name, original in originals.items():
            setattr(kind, name, original)
    if len(set(map(id, drivers))) != 1:
        raise RuntimeError("The operation used several connections.")
    return _bare(drivers[0], itertools.cycle([sent[:once], sent[once:]]))


def _bare(driver: Any, turns: Iterator[list[tuple[str, Any]]]) -> Work:
    if hasattr(driver, "execute_fetchall"):  # aiosqlite

        async def sqlite() -> None:
            for sql, parameters in next(turns):
                await driver.execute_fetchall(sql, parameters)

        return sqlite
    if hasattr(driver, "fetchrow"):  # asyncpg

        async def postgresql() -> None:
            for sql, parameters in next(turns):
                await driver.fetch(sql, *parameters)

        return postgresql

    async def mysql() -> None:
        for sql, parameters in next(turns):
            cursor = await driver.cursor()
            await cursor.execute(sql, parameters)
            await cursor.fetchall()

    return mysql
