"""The program `dataflow`: what the models of an application are, for those who develop it."""

from __future__ import annotations

import click

from nexus_channels.cli.program import Program, State, output_option

_EPILOG = """\
Examples:
  dataflow models
  dataflow --app shop/app.py sql Product
"""

program = Program(name="dataflow", help="Look at the models of a Nexus application.", epilog=_EPILOG)


@program.command(params=[output_option()])
@click.pass_obj
def models(state: State) -> None:
    """List the models: their tables, their fields, and what the fields hold."""
    from nexus_channels.cli.models import show_models

    show_models(state)


@program.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1, help="Only these models. Default: all of them.")
@click.pass_obj
def sql(state: State, models: tuple[str, ...]) -> None:
    """Print the SQL that the first use of the models would run, triggers included.

    No database is touched. A model is named by its class or by its table.
    """
    from nexus_channels.cli.models import print_sql

    print_sql(state, models)


def main() -> None:
    """The console script `dataflow`."""
    program(prog_name="dataflow")


if __name__ == "__main__":
    main()
