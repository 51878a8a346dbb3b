"""Filters through relations: SQL on every database, and the predicate over records that include others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import DataFlow
from nexus import LOCAL, Nexus, Session
from nexus.errors import Forbidden, InvalidFilter
from nexus.filters import matches
from nexus.results import plain
from tests.support.databases import empty_database
from tests.support.filters import ENGINES, TEXTS, combined, text_tests
from tests.support.shop import declare_shop

NAMES = st.none() | TEXTS
TOTALS = st.none() | st.sampled_from([0.0, 1.0, 2.5, -1.0])
PLACES = st.none() | st.integers(0, 2)  # which of the records made before it refers to


def _names(name: str) -> st.SearchStrategy[Any]:
    tests = [NAMES, *(operand.map(lambda v, op=op: {op: v}) for op, operand in text_tests().items())]
    tests += [
        NAMES.map(lambda value: {"$ne": value}),
        st.lists(NAMES, max_size=3).map(lambda values: {"$in": values}),
        st.lists(NAMES, max_size=3).map(lambda values: {"$nin": values}),
        st.booleans().map(lambda known: {"$exists": known}),
    ]
    return st.one_of(tests).map(lambda test: {name: test})


_TOTAL_TESTS = st.one_of(
    TOTALS,
    TOTALS.map(lambda v: {"$ne": v}),
    TOTALS.map(lambda v: {"$gte": v}),
    st.just({"$gt": 0.5, "$lt": 2.0}),
)


def _one(name: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        inner,
        inner.map(lambda part: {"$not": part}),
        st.booleans().map(lambda known: {"$exists": known}),
        st.booleans().map(lambda absent: {"$null": absent}),
    ).map(lambda value: {name: value})


def _many(name: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    within = inner.map(lambda part: {name: {"$elemMatch": part}}) | inner.map(
        lambda part: {name: {"$any": part}}
    )
    return _one(name, inner) | within


ORDER = combined(_TOTAL_TESTS.map(lambda test: {"total": test}))
COMPANY = combined(_names("name") | NAMES.map(lambda v: {"meta.kind": v}) | _names("meta.kind"))
CUSTOMER_OWN = _names("name") | TEXTS.map(lambda v: {"tags": v}) | st.just({"tags": {"$size": 1}})
CUSTOMER = combined(
    st.one_of(
        CUSTOMER_OWN,
        _one("company", COMPANY),
        _many("orders", ORDER),
        _names("company.name"),
        _names("company.meta.kind"),
        _TOTAL_TESTS.map(lambda test: {"orders.total": test}),
        _one("friend", combined(CUSTOMER_OWN)),
        _many("friends", combined(CUSTOMER_OWN)),
        _names("friend.company.name"),
    )
)
ORDERS = combined(
    st.one_of(
        _TOTAL_TESTS.map(lambda test: {"total": test}),
        _one("customer", combined(st.one_of(CUSTOMER_OWN, _one("company", COMPANY)))),
        _names("customer.company.name"),
        _names("customer.company.meta.kind"),
        _one("customer.company", COMPANY),
    )
)

COMPANIES = st.lists(
    st.fixed_dictionaries({"name": NAMES, "meta": st.none() | st.fixed_dictionaries({"kind": NAMES})}),
    min_size=1,
    max_size=3,
)
CUSTOMERS = st.lists(
    st.fixed_dictionaries(
        {
            "name": NAMES,
            "company_id": PLACES,
            "friend_id": PLACES,
            "tags": st.none() | st.lists(TEXTS, max_size=2),
        }
    ),
    min_size=1,
    max_size=4,
)
ORDER_ROWS = st.lists(st.fixed_dictionaries({"total": TOTALS, "customer_id": PLACES}), max_size=4)
INCLUDED = {
    "customers": "company,orders,friend.company,friends",
    "orders": "customer.company",
}


class Shop:
    def __init__(self, url: str, **options: bool) -> None:
        self.db = DataFlow(url)
        declare_shop(self.db, **options)
        self.app = Nexus(self.db)
        self.runner = asyncio.Runner()

    async def invoke(self, name: str, /, **arguments: Any) -> Any:
        return plain(await self.app.runtime.invoke(name, arguments, LOCAL, channel="test"))

    async def fill(self, companies: list[Any], customers: list[Any], orders: list[Any]) -> None:
        for route in ("orders", "customers", "companies"):
            await self.invoke(f"{route}.bulk_delete", filter={})
        made: list[list[int]] = []
        for route, rows in (("companies", companies), ("customers", customers), ("orders", orders)):
            ids: list[int] = []
            for row in rows:
                place = {
                    name: _at(ids if name == "friend_id" else made[-1], value)
                    if name.endswith("_id")
                    else value
                    for name, value in row.items()
                }
                ids.append((await self.invoke(f"{route}.create", **place))["id"])
            made.append(ids)

    async def compare(self, route: str, filters: list[Any]) -> None:
        included = await self.invoke(f"{route}.list", include=INCLUDED[route])
        model = next(model for model in self.db.models.values() if model.route == route)
        for document in filters:
            tree = model.parse_filter(document)
            expected = [record["id"] for record in included["records"] if matches(tree, record)]
            found = await self.invoke(f"{route}.list", filter=document)
            assert [record["id"] for record in found["records"]] == expected, (document, included)
            assert (await self.invoke(f"{route}.count", filter=document))["count"] == len(expected)


def _at(ids: list[int], place: int | None) -> int | None:
    return ids[place % len(ids)] if ids and place is not None else None


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with tempfile.TemporaryDirectory() as folder:
        made = Shop(empty_database(request.param, Path(folder)))
        yield made
        made.runner.run(made.db.close())
        made.runner.close()


@settings(max_examples=settings.default.max_examples // 2)
@given(
    companies=COMPANIES,
    customers=CUSTOMERS,
    orders=ORDER_ROWS,
    of_customers=st.lists(CUSTOMER, min_size=1, max_size=5),
    of_orders=st.lists(ORDERS, min_size=1, max_size=5),
)
def test_a_relation_means_the_same_in_sql_and_in_the_predicate(
    shop: Shop, companies: Any, customers: Any, orders: Any, of_customers: Any, of_orders: Any
) -> None:
    async def check() -> None:
        await shop.fill(companies, customers, orders)
        await shop.compare("customers", of_customers)
        await shop.compare("orders", of_orders)

    shop.runner.run(check())


@pytest.fixture
async def invoke(database: str) -> Any:
    db = DataFlow(database)
    declare_shop(db)
    app = Nexus(db)

    async def run(name: str, /, session: Session = LOCAL, **arguments: object) -> Any:
        return plain(await app.runtime.invoke(name, arguments, session, channel="test"))

    run.app = app  # type: ignore[attr-defined]
    async with app.running():
        acme = await run("companies.create", name="Acme", meta={"kind": "big"})
        ada = await run("customers.create", name="Ada", company_id=acme["id"], tags=["vip"])
        bob = await run("customers.create", name="Bob", friend_id=ada["id"])
        for total, customer in ((10.0, ada), (99.0, ada), (5.0, bob)):
            await run("orders.create", total=total, customer_id=customer["id"])
        await run("orders.create", total=1.0)
        yield run


async def _names_of(invoke: Any, document: Any) -> list[str]:
    return [r["name"] for r in (await invoke("customers.list", filter=document))["records"]]


async def test_the_ways_to_say_it(invoke: Any) -> None:
    for document, expected in (
        ({"company": {"name": "Acme"}}, ["Ada"]),
        ({"company.name": "Acme"}, ["Ada"]),
        ({"company": None}, ["Bob"]),
        ({"company": {"$exists": True}}, ["Ada"]),
        ({"company.name": {"$ne": "Acme"}}, ["Bob"]),
        ({"company.name": None}, ["Bob"]),
        ({"company.name": {"$in": [None, "x"]}}, ["Bob"]),
        ({"company.name": {"$exists": True}}, ["Ada"]),
        ({"company": {"name": {"$ne": "Acme"}}}, []),
        ({"company": {"$not": {"name": "Acme"}}}, ["Bob"]),
        ({"orders": {"total": {"$gt": 50}}}, ["Ada"]),
        ({"orders.total": {"$lt": 6}}, ["Bob"]),
        ({"orders": {"$elemMatch": {"total": {"$gt": 1}}}}, ["Ada", "Bob"]),
        ({"friend.company.meta.kind": "big"}, ["Bob"]),
        ({"friends": {"name": "Bob"}}, ["Ada"]),
        ({"$or": [{"company": None}, {"orders.total": 99}]}, ["Ada", "Bob"]),
    ):
        assert await _names_of(invoke, document) == expected, document


async def test_they_work_wherever_a_filter_does(invoke: Any) -> None:
    assert (await invoke("orders.count", filter={"customer.name": "Ada"}))["count"] == 2
    groups = await invoke(
        "orders.aggregate", filter={"customer": {"tags": "vip"}}, aggregate={"sold": {"$sum": "$total"}}
    )
    assert groups["records"] == [{"sold": 109.0}]
    assert (await invoke("orders.get", filter={"customer.name": "Bob"}))["total"] == 5.0
    done = await invoke(
        "orders.bulk_update", filter={"customer.company.name": "Acme"}, update={"$inc": {"total": 1}}
    )
    assert done["updated"] == 2
    done = await invoke("orders.update", filter={"customer.name": "Bob"}, fields={"total": 6.0})
    assert done["total"] == 6.0
    # A condition on the very table that is changed, which not every database allows in one statement.
    done = await invoke("customers.bulk_update", filter={"friend.name": "Ada"}, update={"name": "Bo"})
    assert done["updated"] == 1
    assert (await invoke("customers.bulk_delete", filter={"friends.name": "Bo"}))["deleted"] == 1
    assert (await invoke("orders.bulk_delete", filter={"customer": None}))["deleted"] == 3


def nested(name: str, times: int) -> dict[str, Any]:
    return {name: nested(name, times - 1)} if times else {}


LEAVES = st.sampled_from(
    [
        {"name": "x"},
        {"name": {"$regex": "a.*b"}},
        {"id": {"$in": [1, 2, 3]}},
        {"tags": {"$elemMatch": {"$gt": "a", "$lt": "x"}}},
        {"tags": {"$contains": ["x", "y"]}},
        {"created_at": {"$between": ["2026-01-01", "2027-01-01"]}},
        {"friend.company.meta.kind": {"$nin": ["a", None]}},
    ]
)
WRAPPINGS: list[Any] = [
    lambda part: {"$not": part},
    lambda part: {"$or": [{"name": "x"}, part]},
    lambda part: {"$or": [part, {"name": "x"}]},
    lambda part: {"$nor": [part, {"id": 1}]},
    lambda part: {"$and": [{"name": "x"}, part]},
    lambda part: {"name": {"$ne": "x"}, "$not": part},
    lambda part: {"friend": part},
    lambda part: {"friend": {"$not": part}, "name": "x"},
    lambda part: {"friends": {"$elemMatch": part}},
]


@settings(max_examples=settings.default.max_examples // 3)
@given(leaf=LEAVES, wrappings=st.lists(st.sampled_from(WRAPPINGS), min_size=3, max_size=3))
def test_the_deepest_filter_that_is_taken_runs(guarded: Shop, leaf: Any, wrappings: Any) -> None:
    """Databases differ in how deep an expression may be: what is refused is refused before."""
    model = guarded.db.models["Customer"]
    deepest, document = leaf, leaf
    with contextlib.suppress(InvalidFilter):
        for wrap in itertools.cycle(wrappings):
            document = wrap(document)
            model.parse_filter(document)
            deepest = document

    async def run() -> None:
        with guarded.db.tenant("acme"):
            await guarded.invoke("customers.bulk_update", filter=deepest, update={"name": "y"}, limit=1)
            await guarded.invoke("customers.aggregate", filter=deepest, aggregate={"n": {"$count": {}}})
            page = {"order_by": "-name,created_at", "limit": 1, "filter": deepest, "count": True}
            found = await guarded.invoke("customers.list", cursor="", **page)
            while found["next"]:
                found = await guarded.invoke("customers.list", cursor=found["next"], **page)
            assert found["total"] >= found["count"]

    guarded.runner.run(run())


@pytest.fixture(scope="module", params=ENGINES)
def guarded(request: pytest.FixtureRequest) -> Iterator[Shop]:
    """What is added to every filter here makes it deeper still."""
    with tempfile.TemporaryDirectory() as folder:
        made = Shop(empty_database(request.param, Path(folder)), multi_tenant=True, soft_delete=True)

        async def fill() -> None:
            with made.db.tenant("acme"):
                for name in ("x", "y", "z"):
                    await made.invoke("customers.create", name=name, friend_id=1)

        made.runner.run(fill())
        yield made
        made.runner.run(made.db.close())
        made.runner.close()


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"compny": {"name": "x"}}, "company"),
        ({"company": {"nmae": "x"}}, "name"),
        ({"company.nmae": "x"}, "name"),
        ({"company": 5}, "relation"),
        ({"company": {"$elemMatch": {"name": "x"}}}, "one record"),
        ({"company": {"$size": 2}}, "size"),
        ({"company": {"$exists": "yes"}}, "true or false"),
        ({"orders": {"total": "x"}}, "total"),
        (nested("friend", 6), "at most 5"),
        ({".".join(["friend"] * 6 + ["name"]): "x"}, "at most 5"),
        ({".".join(["friend"] * 500 + ["name"]): "x"}, "steps"),
    ],
)
async def test_what_cannot_be_meant_is_refused(invoke: Any, document: Any, named: str) -> None:
    with pytest.raises(InvalidFilter, match=named):
        await invoke("customers.list", filter=document)


async def test_five_relations_in_a_row(invoke: Any) -> None:
    assert await _names_of(invoke, {".".join(["friend"] * 5 + ["name"]): "x"}) == []


async def test_who_may_not_list_a_model_learns_nothing_of_it(invoke: Any) -> None:
    narrow = Session("1", "narrow", scopes=frozenset({"orders.list", "orders.count", "customers.list"}))
    assert len((await invoke("orders.list", narrow, filter={"customer.name": "Ada"}))["records"]) == 2
    for document in (
        {"customer.company.name": "Acme"},
        {"$or": [{"total": 1}, {"customer": {"company": None}}]},
    ):
        with pytest.raises(Forbidden, match=r"companies\.list"):
            await invoke("orders.list", narrow, filter=document)
        with pytest.raises(Forbidden, match=r"companies\.list"):
            await invoke("orders.count", narrow, filter=document)
    with pytest.raises(Forbidden, match=r"companies\.list"):
        await invoke("orders.list", narrow, include="customer.company")


async def test_a_subscription_cannot_look_at_another_model(invoke: Any) -> None:
    with pytest.raises(InvalidFilter, match="customer"):
        invoke.app.feed.subscribe(LOCAL, "orders", filter={"customer.name": "Ada"})


async def test_other_tenants_and_the_deleted_are_not_found_through_a_relation(database: str) -> None:
    db = DataFlow(database)
    declare_shop(db, multi_tenant=True, soft_delete=True)
    app = Nexus(db)
    acme, other = (Session(n, n, scopes=frozenset("*"), tenant=n) for n in ("acme", "other"))

    async def run(session: Session, name: str, /, **arguments: object) -> Any:
        return plain(await app.runtime.invoke(name, arguments, session, channel="test"))

    async with app.running():
        mine = await run(acme, "companies.create", name="Acme")
        theirs = await run(other, "companies.create", name="Theirs")
        for company in (mine, theirs):
            await run(acme, "customers.create", name=company["name"], company_id=company["id"])
        through: dict[str, object] = {"filter": {"company": {"$exists": True}}}
        assert [r["name"] for r in (await run(acme, "customers.list", **through))["records"]] == ["Acme"]
        whole = await run(acme, "customers.list", include="company")
        assert [r["company"] and r["company"]["name"] for r in whole["records"]] == ["Acme", None]
        assert (await run(other, "companies.list", include="customers"))["records"][0]["customers"] == []

        await run(acme, "companies.delete", id=mine["id"])
        assert (await run(acme, "customers.count", **through))["count"] == 0
        assert (await run(acme, "customers.count", include_deleted=True, **through))["count"] == 1
        named = {"filter": {"company": {"deleted_at": {"$exists": True}}}}
        assert (await run(acme, "customers.count", **named))["count"] == 1
        whole = await run(acme, "customers.list", include="company")
        assert [r["company"] for r in whole["records"]] == [None, None]
        whole = await run(acme, "customers.list", include="company", include_deleted=True)
        assert whole["records"][0]["company"]["name"] == "Acme"
