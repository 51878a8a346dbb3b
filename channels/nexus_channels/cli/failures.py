"""How a failure looks in a terminal: a line on stderr for each thing that is wrong, and an exit code."""

from __future__ import annotations

import traceback

import click
import msgspec

from nexus.errors import InvalidArguments, InvalidInput, NexusError, Problem, UnknownOperation, did_you_mean
from nexus_channels.cli.options import closest
from nexus_channels.cli.program import SEE_TRACEBACK, State


def report(failure: Exception, state: State) -> int:
    """Write `failure` to stderr; the exit code that it means."""
    error = as_nexus_error(failure)
    if state.debug:
        error.remedy = error.remedy.replace(SEE_TRACEBACK, "")
        click.echo("".join(traceback.format_exception(failure)), nl=False, err=True)
    if state.output == "json":
        click.echo(msgspec.json.encode(error.describe()), err=True)
    else:
        for line in lines(error):
            click.echo(line, err=True)
    return error.exit_code


def as_nexus_error(failure: Exception) -> NexusError:
    """The error of the one tree that `failure` is, whoever raised it."""
    if isinstance(failure, click.ClickException):
        return _from_click(failure)
    if not isinstance(failure, NexusError):
        return NexusError(f"Unexpected {_shown(failure)}", remedy=SEE_TRACEBACK)
    if type(failure) is NexusError and failure.__cause__ is not None and failure.remedy != SEE_TRACEBACK:
        # The runtime keeps a handler's own words from the network; here the caller is who runs it.
        return NexusError(f"{failure.detail.rstrip('.')}: {_shown(failure.__cause__)}", remedy=SEE_TRACEBACK)
    return failure


def lines(error: NexusError) -> list[str]:
    """`error CODE: operation: problem remedy`, for the error or for each of the problems in it."""
    if not isinstance(error, InvalidArguments):
        return [_line(error.code, str(error))]
    operation = error.detail.partition(": ")[0]
    found = [_line(problem.code, f"{operation}: {problem.detail}") for problem in error.problems]
    if error.remedy:
        found[0] = f"{found[0]} {error.remedy}"
    return found


def _line(code: str, text: str) -> str:
    # What was typed may hold anything, and must neither break the line nor drive the terminal.
    words = " ".join(text.split())
    return f"error {code}: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def _shown(failure: BaseException) -> str:
    message = str(failure)
    return f"{type(failure).__name__}: {message}." if message else f"{type(failure).__name__}."


def _from_click(failure: click.ClickException) -> NexusError:
    """What click itself refuses, in the codes that operations use for the same mistakes."""
    message = failure.format_message()
    if not isinstance(failure, click.UsageError) or failure.ctx is None:
        return InvalidInput(message)
    command = failure.ctx.command_path
    if isinstance(failure, click.exceptions.NoSuchCommand):
        name, known = failure.command_name, failure.possibilities or []
        return UnknownOperation(f"There is no command '{name}'.", remedy=did_you_mean(name, known))
    if isinstance(failure, click.NoSuchOption):
        known = [parameter.opts[-1] for parameter in failure.ctx.command.params if parameter.opts]
        detail = f"unknown argument '{failure.option_name}'. {closest(failure.option_name, known)}"
        return _invalid(command, InvalidArguments.UNKNOWN, failure.option_name, detail.rstrip())
    if isinstance(failure, (click.MissingParameter, click.BadOptionUsage)):
        return _invalid(command, InvalidArguments.MISSING, "", message)
    if isinstance(failure, click.BadParameter):
        return _invalid(command, InvalidArguments.TYPE, failure.param.name if failure.param else "", message)
    return InvalidInput(
        f"{command}: {message.rstrip('.')}.", remedy=f"'{command} --help' says what it takes."
    )


def _invalid(command: str, code: str, name: str | None, detail: str) -> InvalidArguments:
    pointer = "/" + name.lstrip("-") if name else ""
    return InvalidArguments(command, [Problem(code, pointer, detail)])
