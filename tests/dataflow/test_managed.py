"""Fields that the platform fills: what a caller gives for them is dropped, with a warning in process."""

from __future__ import annotations

import datetime
import warnings
from typing import Any

import pytest

from dataflow.warnings import AutoManagedField
from nexus import LOCAL, Nexus
from nexus.errors import NexusError
from nexus.schema import json_schema


async def test_a_managed_field_is_dropped_and_told_once_per_line(app: Nexus) -> None:
    old = "2020-01-01T00:00:00Z"

    async def create() -> Any:
        return await app.runtime.invoke(
            "products.create", {"name": "a", "created_at": old, "updated_at": 3}, LOCAL, channel="python"
        )

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        made = [await create() for _ in range(3)]
        changed = await app.runtime.invoke(
            "products.update",
            {"id": made[0].id, "fields": {"stock": 2, "$set": {"created_at": old}}},
            LOCAL,
            channel="python",
        )
    assert [(w.category, w.filename) for w in caught] == [(AutoManagedField, __file__)] * 2
    assert "DF-103: products.create fills 'created_at', 'updated_at'" in str(caught[0].message)
    assert changed.created_at == made[0].created_at > datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("channel", ["rest", "mcp", "cli", "websocket"])
async def test_over_a_channel_a_managed_field_is_dropped_in_silence(app: Nexus, channel: str) -> None:
    for given in ({"name": "a", "created_at": 1}, b'{"name": "a", "created_at": 1}'):
        made = await app.runtime.invoke("products.create", given, LOCAL, channel=channel)
        assert made.created_at.year > 2020
    with pytest.raises(NexusError, match="unknown argument 'creatd_at'"):
        await app.runtime.invoke(
            "products.create", {"name": "a", "creatd_at": 1, "created_at": 1}, LOCAL, channel=channel
        )
    assert "created_at" not in json_schema(app.registry["products.create"].input)["properties"]
