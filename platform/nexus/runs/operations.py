"""The operations on runs, which every channel offers."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from nexus.call import Call
from nexus.errors import InvalidCursor
from nexus.operation import Effect, Operation
from nexus.policy import ANYONE
from nexus.runs.record import Run, RunList, State
from nexus.runs.runs import Runs

_ID = re.compile(r"[0-9a-f]{32}")
_MOST = 1000


class ListRuns(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    workflow: Annotated[str | None, msgspec.Meta(description="Only runs of this workflow")] = None
    state: Annotated[State | None, msgspec.Meta(description="Only runs in this state")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST, description="At most so many")] = 50
    cursor: Annotated[str | None, msgspec.Meta(description="The 'next' of the page before")] = None


class OneRun(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    id: str


def run_operations(runs: Runs) -> list[Operation]:
    """Whoever may start runs may use them; what they show is narrowed to what the session may see."""

    async def list_(call: Call, given: ListRuns) -> RunList:
        if given.cursor is not None and not _ID.fullmatch(given.cursor):
            raise InvalidCursor(f"'{given.cursor[:80]}' is no cursor of runs.", remedy="Use a page's 'next'.")
        return await runs.list(
            call.session,
            workflow=given.workflow,
            state=given.state,
            limit=given.limit,
            after=given.cursor,
        )

    async def get(call: Call, given: OneRun) -> Run:
        return await runs.get(given.id, call.session)

    async def cancel(call: Call, given: OneRun) -> Run:
        return await runs.cancel(given.id, call.session)

    return [
        Operation(
            "runs.list",
            list_,
            ListRuns,
            RunList,
            Effect.READ,
            "List runs of workflows, newest first, in pages.",
            permission=ANYONE,
            resource="runs",
            verb="list",
            platform=True,
        ),
        Operation(
            "runs.get",
            get,
            OneRun,
            Run,
            Effect.READ,
            "Read a run: its inputs, its nodes, its result or its error.",
            permission=ANYONE,
            resource="runs",
            verb="get",
            on_record=True,
            platform=True,
        ),
        Operation(
            "runs.cancel",
            cancel,
            OneRun,
            Run,
            Effect.UPDATE,
            "Cancel a run: stop its work and roll it back.",
            permission=ANYONE,
            resource="runs",
            verb="cancel",
            on_record=True,
            atomic=False,  # records are kept by themselves
            platform=True,
        ),
    ]
