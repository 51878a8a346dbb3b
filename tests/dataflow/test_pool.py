"""Slots: never more than there are, never one lost, whoever is cancelled when."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.pool import Care, Slots
from nexus.errors import Unavailable


class Plug:
    usable = True

    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Socket:
    """Opens plugs, some of them in vain."""

    def __init__(self, chance: random.Random, failing: float = 0.0) -> None:
        self.opened: list[Plug] = []
        self._chance = chance
        self._failing = failing

    async def __call__(self) -> Plug:
        await asyncio.sleep(self._chance.random() / 1000)
        if self._chance.random() < self._failing:
            raise Unavailable("no power")
        self.opened.append(Plug())
        return self.opened[-1]


@given(seed=st.integers(0, 2**32), size=st.integers(1, 4), failing=st.sampled_from([0.0, 0.3]))
def test_no_slot_is_lost(seed: int, size: int, failing: float) -> None:
    async def story() -> None:
        chance = random.Random(seed)
        socket = Socket(chance, failing)
        slots = Slots(socket, size, Care(patience=5))
        in_use: set[Plug] = set()

        async def use() -> None:
            try:
                plug = await slots.take()
            except Unavailable:
                return
            assert plug not in in_use
            in_use.add(plug)
            assert len(in_use) <= size
            try:
                await asyncio.sleep(chance.random() / 1000)
            finally:
                in_use.discard(plug)
                slots.give(plug)

        tasks = [asyncio.create_task(use()) for _ in range(25)]
        for task in tasks:
            await asyncio.sleep(chance.random() / 2000)
            if chance.random() < 0.4:
                task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()
        socket._failing = 0
        taken = [await asyncio.wait_for(slots.take(), 1) for _ in range(size)]
        assert len(set(taken)) == size == slots.open
        for plug in taken:
            slots.give(plug)
        await slots.close()
        assert all(plug.closed for plug in socket.opened)

    asyncio.run(story())


async def test_waiting_has_an_end() -> None:
    slots = Slots(Socket(random.Random(1)), 1, Care(patience=0.05))
    held = await slots.take()
    with pytest.raises(Unavailable, match="all 1 are in use"):
        await slots.take()
    slots.give(held)
    assert await slots.take() is held
    slots.give(held)
    await slots.close()


async def test_closing_wakes_who_waits_and_closes_what_is_given_back() -> None:
    slots = Slots(Socket(random.Random(1)), 1)
    held = await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    closing = asyncio.create_task(slots.close())
    with pytest.raises(Unavailable, match="closed"):
        await waiting
    assert not closing.done()
    slots.give(held)
    await closing
    assert held.closed
