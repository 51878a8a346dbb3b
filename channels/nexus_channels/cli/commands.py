"""Commands made of operations, when they are called and for that call only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click
import msgspec

from nexus import Effect, Nexus, NexusError, Operation
from nexus.arguments import UNREADABLE, Given, malformed
from nexus.batch import BATCH
from nexus.demands import Demands, Noted
from nexus.errors import (
    ConfigurationError,
    InvalidArguments,
    InvalidInput,
    NotFound,
    Problem,
    UnknownOperation,
    did_you_mean,
    nearest,
)
from nexus.schema import json_schema
from nexus_channels.cli import running
from nexus_channels.cli.arguments import Words, as_typed, demanded, gather, read_json, split
from nexus_channels.cli.options import ETAG, ID, Options
from nexus_channels.cli.output import show, write
from nexus_channels.cli.program import FORMS, State, state_of, write_epilog

WATCH = "watch"


class OperationCommand(click.Command):
    """One operation. click writes the help and completes; the words are split by ourselves, so
    that every mistake in them gets to the operation's own validator."""

    def __init__(self, name: str, operation: Operation, *, positional: bool) -> None:
        self.operation = operation
        self.options = Options(operation, positional=positional)
        super().__init__(
            name,
            params=self.options.parameters(),
            help=operation.summary or f"Run {operation.name}.",
            add_help_option=True,
        )

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        return [word for word, own in self.options.own.items() if own == "help"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            words = split(args, self.options)
            if "help" in words.own:
                click.echo(ctx.get_help())
                ctx.exit()
            ctx.meta[__name__] = words
        return []

    def invoke(self, ctx: click.Context) -> None:
        words: Words = ctx.meta[__name__]
        state = state_of(ctx)
        _set_output(state, words, self.operation.name)
        try:
            result = self._run(state.application(), words)
        except InvalidArguments as failure:
            raise as_typed(failure, self.options) from failure
        if ETAG in words.own:
            _show_tag(self.operation, result)
        else:
            show(result, state)

    def _run(self, application: Nexus, words: Words) -> Any:
        given = gather(words, self.options, application.settings.body_limit)
        demands = demanded(words, self.operation.name)
        asks = self.operation.effect is Effect.DELETE and "yes" not in words.own
        if asks and not (demands is not None and demands.dry_run):
            _confirm(self.operation, given)
        return run_once(application, self.operation.name, given, demands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write("Examples:\n")
        for words in (_example(self.options), "--json @arguments.json"):
            formatter.write(f"  {ctx.command_path} {words}".rstrip() + "\n")


class ResourceCommand(click.Group):
    """A resource of the application: a command for each of its verbs, and `watch`."""

    def __init__(self, name: str, application: Nexus) -> None:
        super().__init__(
            name, help=f"The operations of '{name}'.", subcommand_metavar="VERB [ID] [--field VALUE] …"
        )
        self.resource = name
        self.application = application

    @property
    def verbs(self) -> Mapping[str, Operation]:
        return self.application.registry.verbs(self.resource)

    def list_commands(self, ctx: click.Context) -> list[str]:
        watched = self.resource in self.application.feed.topics()
        return [*self.verbs, *([WATCH] if watched and WATCH not in self.verbs else [])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (operation := self.verbs.get(cmd_name)) is not None:
            return OperationCommand(cmd_name, operation, positional=True)
        if cmd_name == WATCH:
            return watch_command(self.resource)
        if ctx.resilient_parsing:
            return None
        message = f"'{self.resource}' has no operation '{cmd_name}'."
        raise _unknown(message, cmd_name, self.list_commands(ctx))


def run_once(application: Nexus, name: str, given: Given, demands: Demands | None) -> Any:
    """Say so where it was done before."""
    noted = Noted()
    result = running.run(application, name, given, demands, noted)
    if noted.replayed:
        click.echo("Nothing was done: this is the answer of the first time.", err=True)
    return result


def run_batch(state: State, source: str, demands: Mapping[str, Any]) -> None:
    """What stands in a file, or comes from stdin: what the REST channel takes, or only the list in it."""
    application = state.application()
    document = read_json(source if source == "-" else f"@{source}", application.settings.body_limit)
    if document.lstrip()[:1] == b"[":
        document = b'{"operations": %b}' % document
    show(run_once(application, BATCH, document, Demands(**demands)), state)


def resource_command(ctx: click.Context, name: str, static: Iterable[str]) -> click.Command | None:
    """The resource of that name; raises UnknownOperation with the nearest command or resource."""
    state = state_of(ctx)
    message = f"There is no command or resource '{name}'."
    if not state.has_application and not ctx.resilient_parsing:
        if nearest(name, static):
            raise _unknown(message, name, static)
        raise ConfigurationError(
            f"There is no application here to look '{name}' up in.",
            remedy="Give --app before the command, set NEXUS_APP, or go where an app.py is.",
        )
    application = _application(ctx)
    if application is None:
        return None
    resources = application.registry.resources()
    if name in resources:
        return ResourceCommand(name, application)
    if ctx.resilient_parsing:
        return None
    raise _unknown(message, name, [*static, *resources])


def topic_command(ctx: click.Context, name: str) -> click.Command | None:
    """The resource of that name, there or not: following it says that there is no such topic."""
    application = _application(ctx)
    return None if application is None else ResourceCommand(name, application)


def workflow_command(ctx: click.Context, name: str) -> click.Command | None:
    """The operation of that name that belongs to no resource; raises UnknownOperation."""
    application = _application(ctx)
    if application is None:
        return None
    standing = _standing(application)
    if name in standing:
        return OperationCommand(name, standing[name], positional=False)
    if ctx.resilient_parsing:
        return None
    if name in application.registry and not application.registry[name].internal:
        found = application.registry[name]
        raise UnknownOperation(
            f"'{name}' is no workflow.",
            remedy=f"Use '{_command(found)}', or 'nexus execute {name}'.",
        )
    raise _unknown(f"There is no workflow '{name}'.", name, standing)


def node_command(ctx: click.Context, name: str) -> click.Command | None:
    """Any public operation, by any of its spellings; raises UnknownOperation."""
    application = _application(ctx)
    if application is None or (ctx.resilient_parsing and name not in application.registry):
        return None
    return OperationCommand(name, application.registry.outside(name), positional=False)


def watch_command(topic: str) -> click.Command:
    """`watch`, for the topic of one resource."""

    @click.command(WATCH, epilog=f"Example:\n  nexus {topic} watch --snapshot | jq .\n", cls=_WatchCommand)
    @click.option("--filter", "where", metavar="JSON", help="Follow the records that match, as in 'list'.")
    @click.option("--snapshot", is_flag=True, help="Begin with the records that there are.")
    @click.option("--since", metavar="CURSOR", help="Begin after the change with this cursor.")
    @click.pass_obj
    def watch(state: State, where: str | None, snapshot: bool, since: str | None) -> None:
        """Follow what happens, as lines of JSON, until interrupted.

        After the line 'ready' every change is shown. It says whether its record entered, was updated
        within, or left what is followed.
        """
        application = state.application()
        parsed = None if where is None else _json_option("--filter", where, application.settings.body_limit)
        running.watch(application, topic, where=parsed, since=since, snapshot=snapshot)

    return watch


class _WatchCommand(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(self, formatter)


def show_operations(state: State) -> None:
    """Write the public operations: as JSON with the schema of what each accepts."""
    application = state.application()
    found = sorted(application.registry.public(), key=lambda operation: (operation.resource, operation.name))
    as_table = state.output == "table" or (state.output is None and sys.stdout.isatty())
    show([_summary(operation) | ({} if as_table else _details(operation)) for operation in found], state)


def names_for_completion(state: State, kind: str) -> list[str]:
    """The names of a kind that the application has now; none when it cannot be loaded."""
    try:
        application = state.application()
    except Exception:  # completion and help have no way to say it; the command itself will
        return []
    if kind == "resources":
        return application.registry.resources()
    if kind == "workflows":
        return list(_standing(application))
    return sorted(
        spelling
        for operation in application.registry.public()
        for spelling in {operation.name, operation.node}
        if spelling
    )


def _application(ctx: click.Context) -> Nexus | None:
    """The application; while completing, None when it cannot be loaded."""
    try:
        return state_of(ctx).application()
    except Exception:
        if ctx.resilient_parsing:
            return None
        raise


def _standing(application: Nexus) -> dict[str, Operation]:
    return {operation.name: operation for operation in application.registry.standing()}


def _unknown(message: str, name: str, known: Iterable[str]) -> UnknownOperation:
    return UnknownOperation(message, remedy=did_you_mean(name, known))


def _set_output(state: State, words: Words, operation: str) -> None:
    output = words.own.get("output")
    if output not in (None, *FORMS):
        detail = f"'--output': '{output}' is none of {', '.join(FORMS)}"
        raise InvalidArguments(operation, [Problem(InvalidArguments.TYPE, "", detail)])
    state.output = output or state.output


def _confirm(operation: Operation, given: Given) -> None:
    """Ask before what cannot be undone. What would be refused anyway is refused first."""
    accepted = operation.arguments.accept(given)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(
            f"{operation.name} deletes, and there is no terminal to ask on.", remedy="Give --yes to do it."
        )
    what = f" {getattr(accepted, ID)}" if operation.on_record else ""
    if not click.confirm(f"{operation.name}{what}: delete?", err=True):
        click.echo("Nothing was deleted.", err=True)
        raise click.exceptions.Exit(NexusError.exit_code)


def _show_tag(operation: Operation, result: Any) -> None:
    """As a line of its own, so that a shell can keep it. Raises NotFound where there is no record."""
    tag = None if operation.tag is None else operation.tag(result, msgspec.json.encode(result))
    if tag is None:
        raise NotFound("There is no record, and so no tag.")
    write(tag.encode() + b"\n")


def _json_option(word: str, source: str, limit: int) -> Any:
    document = read_json(source, limit)
    try:
        return msgspec.json.decode(document)
    except UNREADABLE as failure:
        raise malformed(failure, of=f"'{word}'") from None


def _example(options: Options) -> str:
    words = ["ID"] if options.positional else []
    for parameter in options.parameters():
        if isinstance(parameter, click.Option) and parameter.required:
            words.append(f"{parameter.opts[0]} {parameter.metavar or ''}".rstrip())
    return " ".join(words)


def _summary(operation: Operation) -> dict[str, str]:
    return {
        "name": operation.name,
        "command": _command(operation),
        "effect": operation.effect.value,
        "summary": operation.summary,
    }


def _command(operation: Operation) -> str:
    if operation.resource:
        return f"nexus {operation.resource} {operation.verb}"
    return f"nexus {operation.name}" if operation.platform else f"nexus run {operation.name}"


def _details(operation: Operation) -> dict[str, object]:
    return {"node": operation.node or None, "input": json_schema(operation.input)}
