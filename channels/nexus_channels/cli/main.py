"""The program `nexus`: an application's operations as commands, and the commands that serve it.

Only the static commands are written here. The others are looked up in the application's registry when they
are called, so that a model or a workflow is a command as soon as it is registered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from nexus_channels.cli.program import Program, State, output_option, state_of, write_epilog

_HELP = """Use and serve a Nexus application.

The resources of the application are commands as well: 'nexus products list', 'nexus products --help'."""

_EPILOG = """\
Examples:
  nexus serve --port 8080
  nexus install --sql
  nexus products create --name Lamp --price 9.5
  nexus products list --filter '{"price": {"$gt": 3}}' --limit 5
  nexus products watch --snapshot
  nexus run restock --product-id 1 --quantity 10
  nexus --app shop/app.py -o json products get 1
"""


class NexusProgram(Program):
    """The static commands, and behind them every resource of the application."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, for completion; this loads the application."""
        return [*super().list_commands(ctx), *_names_for_completion(ctx, "resources")]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, command.get_short_help_str(formatter.width))
            for name, command in sorted(self.commands.items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if state_of(ctx).has_application:
            formatter.write_paragraph()
            formatter.write("'nexus operations' lists what the application offers.\n")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        static = super().get_command(ctx, cmd_name)
        if static is not None:
            return static
        from nexus_channels.cli.commands import resource_command

        return resource_command(ctx, cmd_name, list(self.commands))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What is to be watched is a topic, whether or not there is a resource of that name."""
        name, *words = args
        if words[:1] == ["watch"] and name not in self.commands and state_of(ctx).has_application:
            from nexus_channels.cli.commands import topic_command

            return name, topic_command(ctx, name), words
        return super().resolve_command(ctx, args)


class WorkflowGroup(click.Group):
    """The operations that stand on their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _names_for_completion(ctx, "workflows")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from nexus_channels.cli.commands import workflow_command

        return workflow_command(ctx, cmd_name)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(self, formatter)


class NodeGroup(click.Group):
    """Every operation, by any of its names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _names_for_completion(ctx, "spellings")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from nexus_channels.cli.commands import node_command

        return node_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """None: they are too many here, and `nexus operations` says more about each."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_epilog(self, formatter)


def _names_for_completion(context: click.Context, kind: str) -> list[str]:
    from nexus_channels.cli.commands import names_for_completion

    return names_for_completion(state_of(context), kind)


program = NexusProgram(name="nexus", help=_HELP, epilog=_EPILOG)

program.add_command(
    WorkflowGroup(
        "run",
        help="Run a workflow, or another operation that belongs to no resource.",
        epilog="Example:\n  nexus run restock --product-id 1 --quantity 10\n",
        subcommand_metavar="NAME [--argument VALUE] …",
    )
)
program.add_command(
    NodeGroup(
        "execute",
        help="Run any operation by any of its names, as a node of a workflow too.",
        epilog="Examples:\n"
        "  nexus execute ProductCreateNode --name Lamp --price 9.5\n"
        "  nexus execute products.get --id 1\n"
        "\n'nexus operations' lists the names.\n",
        subcommand_metavar="NODE [--field VALUE] …",
    )
)


@program.command()
@click.option("--host", help="The address to listen on. Default: $NEXUS_HOST, then 127.0.0.1.")
@click.option("--port", type=int, help="The port to listen on. Default: $NEXUS_PORT, then 8000.")
@click.pass_obj
def serve(state: State, host: str | None, port: int | None) -> None:
    """Serve the application: REST, MCP and the websocket on one port."""
    app = state.application()
    app.settings = replace(app.settings, app=state.reference)
    app.serve(host=host, port=port)


@program.command(params=[output_option()])
@click.option("--sql", is_flag=True, help="Print what would be run, and touch no database.")
@click.pass_obj
def install(state: State, sql: bool) -> None:
    """Make in the databases what the models need: tables, system tables, triggers.

    Running it again changes nothing.
    """
    from nexus_channels.cli.models import install_models, print_sql

    if sql:
        print_sql(state, ())
    else:
        install_models(state)


@program.command()
@click.pass_obj
def mcp(state: State) -> None:
    """Serve the application to one MCP client, on stdin and stdout."""
    from nexus_channels.cli.running import serve_mcp

    serve_mcp(state.application())


@program.command(
    params=[
        click.Argument(["source"], metavar="[FILE]", default="-", required=False),
        click.Option(["--dry-run"], is_flag=True, help="Do everything, show the result, and keep nothing."),
        click.Option(["--max-affected"], type=click.IntRange(0), help="Keep nothing beyond so many records."),
        click.Option(
            ["-k", "--idempotency-key", "key"],
            metavar="KEY",
            help="Do it once, however often it is repeated with this key and the same operations.",
        ),
        output_option(),
    ]
)
@click.pass_obj
def batch(state: State, /, source: str, **demands: Any) -> None:
    """Do several operations in one transaction: all of them, or none.

    FILE, or stdin, is a JSON list: [{"operation": "products.create", "arguments": {"name": "Lamp"}}, …].
    Nothing is asked, also where something is deleted.
    """
    from nexus_channels.cli.commands import run_batch

    run_batch(state, source, demands)


@program.command(params=[output_option()])
@click.pass_obj
def operations(state: State) -> None:
    """List what the application offers, and how to call it."""
    from nexus_channels.cli.commands import show_operations

    show_operations(state)


@program.command()
@click.pass_obj
def openapi(state: State) -> None:
    """Print the REST channel's description, as OpenAPI 3.1."""
    from nexus_channels.cli.describing import print_openapi

    print_openapi(state)


def main() -> None:
    """The console script `nexus`."""
    program(prog_name="nexus")


if __name__ == "__main__":
    main()
