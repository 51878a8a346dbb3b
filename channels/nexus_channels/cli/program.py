"""What the two programs have in common: their global options, and how they end.

Help and the names of the static commands must come at once, so nothing here, nor in the modules of the
programs, imports the kernel before a command needs it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from nexus import Nexus

INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
APPLICATION_VARIABLE = "NEXUS_APP"
DEFAULT_APPLICATION = "app.py"
FORMS = ("json", "table")
SEE_TRACEBACK = "--debug, before the command, shows the traceback."

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass
class State:
    """The global options, and the application that they lead to."""

    reference: str = ""
    output: str | None = None
    debug: bool = False
    _application: Nexus | None = None

    @property
    def has_application(self) -> bool:
        """Whether there is anything to load; it is not looked at."""
        return bool(self.reference) or os.path.isfile(DEFAULT_APPLICATION)

    def application(self) -> Nexus:
        """The application, loaded at the first use. Raises ConfigurationError when there is none."""
        if self._application is None:
            from nexus_channels.cli.loader import load_application

            self._application = load_application(self.reference or DEFAULT_APPLICATION)
        return self._application


def state_of(context: click.Context) -> State:
    return context.ensure_object(State)


class Program(click.Group):
    """A group whose errors, whatever they are, become a line on stderr and an exit code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(context_settings=_CONTEXT, subcommand_metavar="COMMAND …", **options)
        self.params += [application_option(), output_option(), debug_option(), version_option()]

    def main(self, *arguments: Any, **options: Any) -> NoReturn:
        state = options.setdefault("obj", State())
        options["standalone_mode"] = False
        try:
            code = super().main(*arguments, **options)
        except (KeyboardInterrupt, click.Abort):
            code = INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as failure:
            failure.show()
            code = failure.exit_code
        except Exception as failure:
            from nexus_channels.cli.failures import report

            code = report(failure, state)
        sys.exit(code if isinstance(code, int) else 0)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(self, formatter)


def write_epilog(command: click.Command, formatter: click.HelpFormatter) -> None:
    """The epilog as it stands: examples are to be copied, not wrapped."""
    if command.epilog:
        formatter.write_paragraph()
        formatter.write(command.epilog.rstrip() + "\n")


def application_option() -> click.Option:
    return click.Option(
        ["--app", "reference"],
        envvar=APPLICATION_VARIABLE,
        metavar="APP",
        help="The application: 'module:name', 'path.py' or 'path.py:name'."
        f" Default: ${APPLICATION_VARIABLE}, then {DEFAULT_APPLICATION} in this folder.",
        expose_value=False,
        is_eager=True,
        callback=_remember,
    )


def output_option() -> click.Option:
    """Also for commands that want it after their name."""
    return click.Option(
        ["-o", "--output"],
        type=click.Choice(FORMS),
        help="How results are written. Default: a table on a terminal, JSON elsewhere.",
        expose_value=False,
        callback=_remember,
    )


def debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        default=None,
        help="Show the traceback of whatever fails.",
        expose_value=False,
        callback=_remember,
    )


def version_option() -> click.Option:
    return click.Option(
        ["--version"],
        is_flag=True,
        help="Show the version and exit.",
        expose_value=False,
        is_eager=True,
        callback=_show_version,
    )


def _remember(context: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None and option.name is not None:
        setattr(state_of(context), option.name, value)


def _show_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib import metadata

    try:
        version = metadata.version("nexus-platform")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    click.echo(f"{context.info_name} {version}")
    context.exit()
