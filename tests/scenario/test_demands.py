"""What is asked beside the arguments, and several operations as one, through each channel of the shop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import drivers
from tests.scenario.drivers import Server
from tests.scenario.test_story import CHANNELS, LAMP, SHOP


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Server]:
    environment = drivers.environment(DATABASE_URL=f"sqlite:///{tmp_path / 'shop.db'}")
    async with drivers.server(SHOP, environment) as running:
        yield running


@pytest.mark.parametrize("channel", CHANNELS)
async def test_dry_runs_limits_and_batches(served: Server, channel: str) -> None:
    async with drivers.watcher(served) as watcher, CHANNELS[channel](served) as driver:
        await watcher.subscribe(topic="products")

        tried = await driver.run("products.create", LAMP, dry_run=True)
        assert tried.result["name"] == "Lamp"
        steps: list[dict[str, Any]] = [
            {"operation": "products.create", "arguments": LAMP},
            {"operation": "products.create", "arguments": {"name": "Pen", "price": 1}},
            {"operation": "restock", "arguments": {"product_id": 1, "quantity": 5}},
        ]
        both = {"operations": steps}
        assert len((await driver.run("batch", both, dry_run=True)).result["results"]) == 3
        refused = await driver.run("batch", both, max_affected=2)
        assert refused.code == "NX-424", refused
        wrong = {"operations": [*steps, {"operation": "products.get", "arguments": {"id": 9}}]}
        failed = await driver.run("batch", wrong)
        assert failed.code == "DF-404"
        assert "/operations/3" in failed.text or channel not in ("rest", "websocket")
        assert await watcher.silence(0.3)

        done = await driver.run("batch", both, max_affected=3)
        assert [one.get("name") for one in done.result["results"][:2]] == ["Lamp", "Pen"]
        seen = [await watcher.frame() for _ in range(3)]
        assert [(f["event"], f["key"]) for f in seen] == [("enter", 1), ("enter", 2), ("update", 1)]
        assert {f["run"] for f in seen} == {done.result["run_id"]}

        refused = await driver.run("products.bulk_delete", {"filter": {}}, max_affected=1)
        assert refused.code == "NX-424"
        assert (await driver.run("products.count", {})).result == {"count": 2}
        await driver.run("products.bulk_delete", {"filter": {}}, max_affected=2)
        assert (await driver.run("products.count", {})).result == {"count": 0}
