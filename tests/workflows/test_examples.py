"""What programs of older documents do with workflows, as whole programs do it: on every database."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from dataflow import DataFlow
from nexus.errors import NotFound, RegistrationError
from nexus_workflows import AsyncLocalRuntime, LocalRuntime, WorkflowBuilder


@pytest.fixture
def shop(database: str) -> Any:
    db = DataFlow(database)

    @db.model
    class User:
        name: str
        email: str
        age: int = 0
        active: bool = True

    @db.model
    class Profile:
        user_id: int
        bio: str = ""

    @db.model
    class Account:
        user_id: int
        balance: float

    @db.model(skip_validation=True)  # `type` is a word of Python's own
    class Transaction:
        account_id: int
        amount: float
        type: str

    @db.model
    class Order:
        user_id: int
        total: float
        status: str = "pending"
        due_date: datetime.datetime | None = None

    @db.model
    class UserAnalytics:
        user_id: int
        display_name: str
        email_domain: str
        account_age_days: int

    @db.model
    class UserProcessingLog:
        user_id: int
        processed_at: datetime.datetime
        status: str

    yield db
    db.sync.close()


ALICE = {"name": "alice smith", "email": "alice@example.com", "age": 28}


def test_one_node(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("UserCreateNode", "create_user", ALICE)
    results, run_id = LocalRuntime().execute(workflow.build())
    user = results["create_user"]["data"]
    assert (user["name"], user["id"]) == ("alice smith", 1)
    assert run_id


def test_a_list_is_its_records_too(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("UserCreateNode", "create", ALICE)
    workflow.add_node("UserListNode", "list", {"filter": {"active": True}})
    workflow.add_connection("create", "result", "list", "input")
    results, _ = LocalRuntime().execute(workflow.build())
    assert [user["name"] for user in results["list"]["result"]] == ["alice smith"]
    assert len(results["list"]["records"]) == 1


def test_native_values_as_parameters(shop: DataFlow) -> None:
    due = datetime.datetime.now(datetime.UTC)
    workflow = WorkflowBuilder()
    workflow.add_node("OrderCreateNode", "create_order", {"total": 100.0, "due_date": due})
    workflow.add_node("UserCreateNode", "create_customer", ALICE)
    workflow.add_connection("create_customer", "id", "create_order", "user_id")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["create_order"]["due_date"] == due
    with pytest.raises(RegistrationError, match="is not a template"):
        workflow.add_node("OrderCreateNode", "wrong", {"user_id": "${create_customer.id}", "total": 1.0})


def test_parallel_nodes_and_one_that_gathers(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    for number in (1, 2, 3):
        config = {"name": f"User {number}", "email": f"user{number}@example.com"}
        workflow.add_node("UserCreateNode", f"create_user_{number}", config)
    workflow.add_node(
        "PythonCodeNode",
        "gather",
        {
            "code": """
found = []
for key in ['user1', 'user2', 'user3']:
    if key in input_data:
        user = input_data[key]
        if isinstance(user, dict) and 'data' in user:
            found.append(user['data']['id'])
result = {"user_ids": found, "total_users": len(found)}
"""
        },
    )
    for number in (1, 2, 3):
        workflow.add_connection(f"create_user_{number}", "result", "gather", f"user{number}")
    results, _ = LocalRuntime().execute(workflow.build())
    assert sorted(results["gather"]["user_ids"]) == [1, 2, 3]
    assert results["gather"]["total_users"] == 3


def test_create_or_update_by_a_condition(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node(
        "UserReadNode", "check_user", {"email": "user@example.com", "return_null_if_not_found": True}
    )
    workflow.add_node(
        "SwitchNode",
        "exists",
        {"condition": "user_data is not None", "true_path": "update", "false_path": "create"},
    )
    workflow.add_node("UserCreateNode", "create", {"name": "New", "email": "user@example.com", "age": 25})
    workflow.add_node("UserUpdateNode", "update", {"name": "Updated", "age": 26})
    workflow.add_connection("check_user", "data", "exists", "user_data")
    workflow.add_connection("check_user", "id", "update", "id")
    workflow.add_connection("exists", "true_output", "update", "input")
    workflow.add_connection("exists", "false_output", "create", "input")
    built = workflow.build()
    first, _ = LocalRuntime().execute(built)
    assert (first["create"]["age"], first["update"]) == (25, None)
    second, _ = LocalRuntime().execute(built)
    assert (second["create"], second["update"]["age"]) == (None, 26)
    assert shop.sync.users.count() == {"count": 1}


def test_all_of_a_workflow_or_nothing(shop: DataFlow) -> None:
    def build(account: dict[str, Any]) -> WorkflowBuilder:
        workflow = WorkflowBuilder()
        workflow.add_node("UserCreateNode", "create_user", ALICE)
        workflow.add_node("AccountCreateNode", "create_account", {"user_id": ":user_id", "balance": 100.0})
        workflow.add_node(
            "TransactionCreateNode", "deposit", {"account_id": ":account_id", "amount": 100.0, "type": "in"}
        )
        workflow.add_node("AccountUpdateNode", "book", account)
        workflow.add_connection("create_user", "id", "create_account", "user_id")
        workflow.add_connection("create_account", "id", "deposit", "account_id")
        workflow.add_connection("deposit", "id", "book", "input")
        return workflow

    with pytest.raises(NotFound):
        LocalRuntime().execute(build({"id": 99, "balance": 1.0}))
    for face in (shop.sync.users, shop.sync.accounts, shop.sync.transactions):
        assert face.count() == {"count": 0}
    change = {"filter": {"id": "{{create_account.id}}"}, "fields": {"balance": {"$inc": 50}}}
    results, _ = LocalRuntime().execute(build(change))
    assert results["book"]["balance"] == 150.0


def test_connections_in_the_older_order_are_put_right(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("UserCreateNode", "create_user", ALICE)
    workflow.add_node("UserReadNode", "verify_user", {"id": ":user_id"})
    with pytest.raises(RegistrationError) as caught:
        workflow.add_connection("create_user", "verify_user", "id", "user_id")
    assert 'add_connection("create_user", "id", "verify_user", "user_id")' in caught.value.remedy
    with pytest.raises(RegistrationError) as caught:
        workflow.add_connection("create_user", "verify_user", "id")
    assert 'add_connection("create_user", "id", "verify_user", "id")' in caught.value.remedy
    workflow.add_connection("create_user", "id", "verify_user", "user_id")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["verify_user"]["data"]["email"] == "alice@example.com"


def test_retries_and_data_instead(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("UserCreateNode", "first", {"id": 1, **ALICE})
    workflow.add_node(
        "UserCreateNode",
        "create_user",
        {
            "id": 1,
            **ALICE,
            "retry": {
                "max_attempts": 3,
                "backoff": "exponential",
                "retry_on": ["connection_error", "timeout"],
            },
            "on_error": {
                "action": "log_and_continue",
                "fallback_data": {"created": False, "error": "creation_failed"},
            },
        },
    )
    workflow.add_node(
        "PythonCodeNode",
        "handle",
        {"code": 'said = get_input_data("create_user")\nresult = {"handled": bool(said.get("error"))}'},
    )
    workflow.add_connection("first", "id", "create_user", "input")
    workflow.add_connection("create_user", "result", "handle", "input")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["create_user"]["created"] is False
    assert results["handle"]["handled"] is True


def test_records_are_transformed_and_stored(shop: DataFlow) -> None:
    shop.sync.users.create(**ALICE)
    workflow = WorkflowBuilder()
    fields = ["id", "name", "email", "created_at"]
    workflow.add_node("UserListNode", "get_users", {"filter": {"active": True}, "fields": fields})
    workflow.add_node(
        "PythonCodeNode",
        "transform_users",
        {
            "code": """
made = []
for user in get_input_data("get_users")["data"]:
    made.append({
        "user_id": user["id"],
        "display_name": user["name"].title(),
        "email_domain": user["email"].split("@")[1],
        "account_age_days": (datetime.now() - user["created_at"]).days,
    })
result = {"transformed_users": made}
"""
        },
    )
    workflow.add_node(
        "UserAnalyticsBulkCreateNode", "store", {"data": ":transformed_users", "batch_size": 100}
    )
    workflow.add_connection("get_users", "result", "transform_users", "input")
    workflow.add_connection("transform_users", "transformed_users", "store", "transformed_users")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["store"]["success_count"] == 1
    stored = shop.sync.model_face("UserAnalytics").get(1)
    assert (stored["display_name"], stored["email_domain"]) == ("Alice Smith", "example.com")


def test_records_are_processed_in_batches(shop: DataFlow) -> None:
    shop.sync.users.bulk_create(data=[{**ALICE, "email": f"{number}@example.com"} for number in range(2300)])
    shop.sync.users.bulk_create(data=[{**ALICE, "active": False}])
    workflow = WorkflowBuilder()
    workflow.add_node(
        "UserListNode", "get_users_batch", {"filter": {"active": True}, "batch_size": 1000, "streaming": True}
    )
    workflow.add_node(
        "PythonCodeNode",
        "process_user_batch",
        {
            "code": """
users = get_input_data("get_users_batch")["data"]
processed = []

for user in users:
    processed.append({
        "user_id": user["id"],
        "processed_at": datetime.now().isoformat(),
        "status": "processed"
    })

result = {"processed_users": processed}
"""
        },
    )
    workflow.add_node(
        "UserProcessingLogBulkCreateNode",
        "store_processing_log",
        {"data": ":processed_users", "batch_size": 500},
    )
    workflow.add_connection("get_users_batch", "result", "process_user_batch", "input")
    workflow.add_connection(
        "process_user_batch", "processed_users", "store_processing_log", "processed_users"
    )
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["get_users_batch"] == {"pages": 3, "count": 2300}
    assert results["store_processing_log"]["last"]["success_count"] == 300
    logged = shop.sync.model_face("UserProcessingLog")
    assert logged.count() == {"count": 2300}
    assert logged.count(filter={"user_id": 2300, "status": "processed"}) == {"count": 1}


def test_reads_side_by_side_are_summed_up(shop: DataFlow) -> None:
    shop.sync.users.create(**ALICE)
    shop.sync.orders.create(user_id=1, total=5.0)
    workflow = WorkflowBuilder()
    workflow.add_node("UserListNode", "get_users", {"filter": {"active": True}, "limit": 1000})
    workflow.add_node(
        "OrderListNode", "get_orders", {"filter": {"created_at": {"$gte": "2024-01-01T00:00:00Z"}}}
    )
    for name in ("users", "orders"):
        source = f'result = {{"processed": len(get_input_data("get_{name}")["data"])}}'
        workflow.add_node("PythonCodeNode", f"process_{name}", {"code": source})
        workflow.add_connection(f"get_{name}", "result", f"process_{name}", "input")
    source = """
users = get_input_data("process_users")
orders = get_input_data("process_orders")
result = {"summary": {"users": users["processed"], "orders": orders["processed"]}}
"""
    workflow.add_node("PythonCodeNode", "sum", {"code": source})
    workflow.add_connection("process_users", "result", "sum", "input")
    workflow.add_connection("process_orders", "result", "sum", "input")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["sum"]["summary"] == {"users": 1, "orders": 1}


def test_one_output_in_several_places(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("UserCreateNode", "create_user", {"name": "John", "email": "john@example.com"})
    workflow.add_node("ProfileCreateNode", "create_profile", {"user_id": ":user_id", "bio": "Test bio"})
    orders = [{"user_id": ":user_id", "total": 100.0}, {"user_id": ":user_id", "total": 200.0}]
    workflow.add_node("OrderBulkCreateNode", "create_orders", {"data": orders})
    workflow.add_connection("create_user", "id", "create_profile", "user_id")
    workflow.add_connection("create_user", "id", "create_orders", "user_id")
    results, _ = LocalRuntime().execute(workflow.build())
    assert results["create_profile"]["data"]["bio"] == "Test bio"
    assert results["create_orders"]["data"]["success_count"] == 2
    assert shop.sync.orders.list(filter={"user_id": results["create_user"]["id"]})["count"] == 2


async def test_updates_from_the_variables_of_code(shop: DataFlow) -> None:
    await shop.users.create(**ALICE)
    workflow = WorkflowBuilder()
    source = """
import asyncio

async def fetch(number):
    await asyncio.sleep(0)
    return {"id": number, "verified": True}

user = await fetch(user_id)
filter_data = {"id": user["id"]}
name = f"{title} Alice"
active = not user["verified"]
"""
    workflow.add_node("AsyncPythonCodeNode", "prepare", {"code": source})
    workflow.add_node("UserUpdateNode", "update", {})
    workflow.add_connection("prepare", "filter_data", "update", "filter")
    workflow.add_connection("prepare", "name", "update", "name")
    workflow.add_connection("prepare", "active", "update", "active")
    runtime = AsyncLocalRuntime(execution_timeout=30)
    results, _ = await runtime.execute_workflow_async(workflow.build(), inputs={"user_id": 1, "title": "Dr."})
    assert (results["update"]["name"], results["update"]["active"]) == ("Dr. Alice", False)
    await shop.close()


async def test_a_generic_node_and_a_condition_with_a_template(shop: DataFlow) -> None:
    workflow = WorkflowBuilder()
    workflow.add_node("ReadNode", "check", {"model": "User", "filter": {"email": "alice@example.com"}})
    workflow.add_node("SwitchNode", "exists", {"condition": "{{check.result}} != None"})
    source = "output_data = {'name': input_data['name'].upper(), 'email': input_data['email']}"
    workflow.add_node("PythonCodeNode", "prepare", {"code": source})
    workflow.add_node(
        "UserCreateNode", "store", {"email": "{{prepare.input_data.email}}", "name": "{{prepare.name}}"}
    )
    workflow.add_connection("exists", "false_output", "prepare", "input_data")
    workflow.add_connection("prepare", "name", "store", "name")
    inputs = {"email": "alice@example.com", "name": "Alice"}
    runtime = AsyncLocalRuntime()
    results, _ = await runtime.execute_workflow_async(workflow.build(), inputs=inputs)
    assert results["store"]["name"] == "ALICE"
    results, _ = await runtime.execute_workflow_async(workflow.build(), inputs=inputs)
    assert (results["prepare"], results["store"]) == (None, None)
    await shop.close()
