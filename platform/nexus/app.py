"""Nexus: puts the parts together and owns their lifespan; nothing else."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nexus import beside, plugins
from nexus.batch import batch_operation
from nexus.channel import Channel
from nexus.config import Settings
from nexus.discovery import discovered
from nexus.errors import ConfigurationError, RegistrationError
from nexus.feed import Feed
from nexus.keys import Keys
from nexus.operation import Operation, operation
from nexus.options import read_options
from nexus.policy import Policy
from nexus.ports import Contributor, Recording, Runnable
from nexus.registry import Registry
from nexus.runs.operations import run_operations
from nexus.runs.runs import Keeping, Runs
from nexus.runtime import Runtime
from nexus.session import Sessions


class Nexus:
    """An application: models and workflows in, four channels out.

        app = Nexus(db)
        app.register("restock", workflow)
        app.serve()

    `channels` names those that are served, by default all. `record_runs` says whether runs of workflows are
    recorded, by default what the settings say: in the first DataFlow, without any in memory. Raises
    TypeError for an option that does not exist, ConfigurationError for one that cannot be honoured.
    """

    def __init__(
        self,
        dataflow_integration: Contributor | None = None,
        *,
        title: str = "Nexus",
        channels: Sequence[str] | None = None,
        settings: Settings | None = None,
        record_runs: bool | None = None,
        **options: object,
    ) -> None:
        self._options = read_options(options)
        self.title = title
        self.settings = dataclasses.replace(settings or Settings.from_environment(), **self._options.settings)
        self.registry = Registry()
        self.sessions = Sessions(self.settings.api_key)
        self.policy = Policy()
        self.feed = Feed(self.registry, self.policy)
        self.runtime = Runtime(self.registry, self.policy, self.feed)
        if self.settings.record_runs if record_runs is None else record_runs:
            kept = Keeping(self.settings.runs_kept, self.settings.runs_days, self.settings.background_runs)
            self.runtime.runs = Runs(self.feed, kept)
            self.feed.add(self.runtime.runs.source)
        self.runtime.keys = Keys(self.settings.idempotency_hours)
        self._contributors: list[Contributor] = []
        self._wanted = channels
        self.beside = beside.Beside()
        named = self._options.integration
        if named is not None and dataflow_integration not in (None, named):
            raise ConfigurationError(
                "dataflow_integration and dataflow_config name two.", remedy="attach() takes further ones."
            )
        integration = named if dataflow_integration is None else dataflow_integration
        if integration is not None:
            self.attach(integration)

    @functools.cached_property
    def channels(self) -> list[str]:
        """The names of the channels that are served; found at the first use, since a program that serves
        nothing need not look through what is installed."""
        names = self._wanted if self._wanted is not None else plugins.channel_names()
        return [name for name in names if name not in self._options.off]

    @property
    def contributors(self) -> tuple[Contributor, ...]:
        """What was attached, in that order."""
        return tuple(self._contributors)

    def attach(self, contributor: Contributor) -> None:
        """Offer what `contributor` has: the models of a DataFlow, those that come later included."""
        if isinstance(contributor, Recording) and not self._recorders():
            self.runtime.keys.replies = contributor.replies
            if self.runtime.runs is not None:
                self.runtime.runs.records = contributor.records
        if not self._contributors:
            self.registry.add(batch_operation())
        self._contributors.append(contributor)
        contributor.contribute(self.runtime)
        if contributor.changes is not None:
            self.feed.add(contributor.changes)

    def register(self, name: str, workflow: Runnable, *, replace: bool = False, record: bool = True) -> None:
        """Offer a workflow under `name`, also while the server runs. With `replace` it takes the place of the
        one of that name; runs that have begun end as they were. Its runs are recorded, unless `record` is
        False or none are."""
        if not isinstance(name, str):
            raise RegistrationError("register() takes the name first, then the workflow.")
        made: Operation = workflow.as_operation(name, self.registry)
        if not record:
            made = dataclasses.replace(made, recorded=False)
        self._add(made, replace=replace)

    def unregister(self, name: str) -> None:
        """Offer it no more. Raises UnknownOperation."""
        self.registry.remove(name)

    def discover(self, folder: str | Path = ".") -> list[str]:
        """Register the workflows in the files `workflows/*.py` and `*_workflow.py` of a folder, each under
        its variable's name; the names. The files are run: this is never done unasked. Raises
        RegistrationError for a file that cannot be loaded, and registers none then."""
        found = discovered(Path(folder))
        for name, workflow in found.items():
            self.register(name, workflow)
        return list(found)

    def operation(self, function: Any) -> Operation:
        """Offer an async function `(call, **arguments)` as an operation of its own name; a decorator."""
        made: Operation = function if isinstance(function, Operation) else operation(function)
        self._add(made)
        return made

    def route(
        self, path: str, *, methods: Iterable[str] = ("GET",), open: bool = False
    ) -> Callable[[Any], Any]:
        """Serve a function beside the channels; a decorator. It takes a Starlette Request and gives a
        Response. It asks for a credential as everything does, unless it is `open`; who asks is in
        `request.scope["nexus.session"]`. Raises ConfigurationError once the application is served."""

        def placed(handler: Any) -> Any:
            self.beside.place(beside.Route(path, handler, beside.methods_of(methods), open))
            return handler

        return placed

    def mount(self, path: str, asgi: Any, *, open: bool = False) -> None:
        """Serve another ASGI application below a path, its lifespan within this one's. Otherwise as
        `route`."""
        self.beside.place(beside.Mounted(path, asgi, open))

    def add_middleware(self, cls: Callable[..., Any], **options: Any) -> None:
        """Put `cls(app, **options)` around the channels and what is beside them, but inside of the check of
        credentials. The first that is added is the outermost."""
        self.beside.wrap(cls, options)

    def check_servable(self) -> None:
        """Raises ConfigurationError for an option that was asked for and that no server can honour."""
        self._options.check_servable(keyed=not self.sessions.open)

    def load_channels(self) -> list[Channel]:
        return [plugins.load_channel(name) for name in self.channels]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Nexus]:
        """Enter this around the use of `runtime` in an event loop; it gives back what was opened there."""
        self.feed.open()
        runs = self.runtime.runs
        if runs is not None:
            runs.open()
        try:
            yield self
        finally:
            self.feed.close()
            if runs is not None:
                await runs.close()
            for contributor in self._contributors:
                await contributor.close()

    def _add(self, made: Operation, *, replace: bool = False) -> None:
        """With the first operation whose runs are recorded come those on runs."""
        runs = self.runtime.runs
        first = made.recorded and runs is not None and not runs.source.open
        beside = run_operations(runs) if first and runs is not None else []
        if replace:
            self.registry.replace(made)
            self.registry.add(*beside)
        else:
            self.registry.add(made, *beside)
        if first and runs is not None:
            runs.source.open = True

    def _recorders(self) -> list[Recording]:
        return [known for known in self._contributors if isinstance(known, Recording)]

    def asgi(self) -> Any:
        """The whole application, every channel at its path, as one ASGI application. Mounted into another,
        which runs no lifespan but its own, that one takes it over: `FastAPI(lifespan=mounted.lifespan)`."""
        return plugins.load(plugins.ASGI)(self)

    def serve(self, *, host: str | None = None, port: int | None = None) -> None:
        """Serve until interrupted or terminated. Raises ConfigurationError when `host` can be reached from
        elsewhere and no API key is set."""
        plugins.load(plugins.SERVER)(self, host=host, port=port)
