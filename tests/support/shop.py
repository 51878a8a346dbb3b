"""Three models that belong together: companies have customers, customers have orders."""

from __future__ import annotations

from typing import Any

from dataflow import DataFlow


def declare_shop(db: DataFlow, **options: Any) -> None:
    @db.model
    class Company:
        name: str | None = None
        meta: dict[str, Any] | None = None
        __dataflow__ = options

    @db.model
    class Customer:
        name: str | None = None
        company_id: int | None = None
        friend_id: int | None = None
        tags: list[Any] | None = None
        __relations__ = {"friend": {"model": "Customer", "field": "friend_id", "reverse": "friends"}}
        __dataflow__ = options

    @db.model
    class Order:
        total: float | None = None
        customer_id: int | None = None
        __dataflow__ = options
