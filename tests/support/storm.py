"""A program that writes wildly: `python -m tests.support.storm URL SEED TRANSACTIONS`."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence

from dataflow import DataFlow
from nexus import Nexus
from nexus.errors import Conflict, NexusError, NotFound

KEYS = 40


class Unwanted(Exception):
    """What makes a transaction roll back."""


def application(url: str, channels: Sequence[str] = ()) -> tuple[DataFlow, Nexus]:
    db = DataFlow(url, pool_size=3, max_overflow=0)

    @db.model
    class Account:
        id: int
        owner: str
        total: int = 0

    return db, Nexus(db, channels=channels)


async def change(db: DataFlow, chance: random.Random) -> None:
    """One or several changes, to few records, so that writers get into each other's way."""
    key = chance.randrange(KEYS)
    match chance.randrange(6):
        case 0 | 1:
            await db.accounts.create(id=key, owner="somebody")
        case 2 | 3:
            await db.accounts.update(key, fields={"total": {"$inc": 1}})
        case 4:
            await db.accounts.delete(key)
        case _:
            low = min(key, KEYS - 5)
            await db.accounts.bulk_update(
                filter={"id": {"$gte": low, "$lt": low + 5}}, update={"total": {"$inc": 10}}
            )


async def transact(db: DataFlow, chance: random.Random) -> None:
    async with db.transaction():
        for _ in range(chance.randrange(1, 4)):
            try:
                async with db.transaction():
                    await change(db, chance)
            except (Conflict, NotFound):
                continue
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() / 50)
        if chance.random() < 0.25:
            raise Unwanted


async def main(url: str, seed: int, count: int) -> None:
    chance = random.Random(seed)
    db, app = application(url)
    async with app.running():
        for _ in range(count):
            try:
                await (transact(db, chance) if chance.random() < 0.6 else change(db, chance))
            except (Unwanted, NexusError):
                continue  # rolled back on purpose, or by the database in favour of another


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
