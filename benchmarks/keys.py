"""What an idempotency key costs: creates with a key and without, side by side.

    python benchmarks/keys.py [URL …]

Without a URL: a new SQLite file. The tables are left behind. Times are per create, in microseconds: medians
of creates one after the other, and of rounds of 80 at once; `again` is a create that is repeated and answered
as before.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable

from dataflow import DataFlow
from nexus import LOCAL, Nexus
from nexus.demands import Demands

ONES, ROUNDS, AT_ONCE = 300, 12, 80
LAMP = b'{"name": "Lamp", "price": 9.5}'

Create = Callable[[str | None], Awaitable[object]]


async def measure(url: str) -> None:
    db = DataFlow(url)

    @db.model
    class Product:
        name: str
        price: float = 0.0

    app = Nexus(db)
    numbers, run = itertools.count(), uuid.uuid4().hex

    async def create(key: str | None) -> object:
        demands = None if key is None else Demands(key=key)
        return await app.runtime.invoke("products.create", LAMP, LOCAL, channel="rest", demands=demands)

    def new_key() -> str:
        return f"{run} {next(numbers)}"

    async def many(keyed: bool) -> None:
        await asyncio.gather(*(create(new_key() if keyed else None) for _ in range(AT_ONCE)))

    async with app.running():
        await many(False)
        await many(True)
        for name, times, count, work in (
            ("one by one", ONES, 1, lambda keyed: create(new_key() if keyed else None)),
            (f"{AT_ONCE} at once", ROUNDS, AT_ONCE, many),
        ):
            plain, keyed = await side_by_side(times, count, work)
            print(f"{url.partition(':')[0]:<12} {name:<12} plain {plain:6.0f}  keyed {keyed:6.0f}", end="")
            print(f"  ratio {keyed / plain:.2f}", flush=True)
        same = new_key()
        await create(same)
        again, _ = await side_by_side(ONES, 1, lambda _: create(same))
        print(f"{url.partition(':')[0]:<12} {'again':<12} {again:6.0f}")


async def side_by_side(
    times: int, count: int, work: Callable[[bool], Awaitable[object]]
) -> tuple[float, float]:
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(times):
        for keyed in (False, True):
            begun = time.perf_counter()
            await work(keyed)
            taken[keyed].append((time.perf_counter() - begun) / count * 1e6)
    return statistics.median(taken[False]), statistics.median(taken[True])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for url in sys.argv[1:] or [f"sqlite:///{folder}/keys.db"]:
            asyncio.run(measure(url))


if __name__ == "__main__":
    main()
