"""What an application serves beside its operations: routes and applications of one's own, and middleware.

The kernel keeps them as they are given; whoever serves the application knows what they are to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nexus.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Route:
    """`handler` takes a request and gives a response; `open`: it asks for no credential."""

    path: str
    handler: Callable[[Any], Any]
    methods: tuple[str, ...]
    open: bool


@dataclass(frozen=True, slots=True)
class Mounted:
    """An ASGI application that answers everything below a path."""

    path: str
    app: Any
    open: bool


@dataclass(frozen=True, slots=True)
class Middleware:
    """A class whose instances are ASGI applications around another."""

    cls: Callable[..., Any]
    options: dict[str, Any]


class Beside:
    """In the order in which they were given. From when it is served on nothing can be added."""

    def __init__(self) -> None:
        self.placed: list[Route | Mounted] = []
        self.middleware: list[Middleware] = []
        self.served = False

    def place(self, one: Route | Mounted) -> None:
        self._still_open(f"'{one.path}'")
        if not one.path.startswith("/") or (one.path != "/" and one.path.endswith("/")):
            raise ConfigurationError(
                f"'{one.path}' is no path.", remedy="It begins with a slash, and does not end with one."
            )
        self.placed.append(one)

    def wrap(self, cls: Callable[..., Any], options: dict[str, Any]) -> None:
        self._still_open("middleware")
        if not callable(cls):
            raise TypeError("add_middleware() takes a class, and its options by name.")
        self.middleware.append(Middleware(cls, options))

    def _still_open(self, what: str) -> None:
        if self.served:
            raise ConfigurationError(
                f"The application is served already: {what} would not be seen.",
                remedy="Add it before asgi() or serve() is called.",
            )


def methods_of(names: Iterable[str]) -> tuple[str, ...]:
    """As HTTP spells them; raises ConfigurationError for none."""
    if isinstance(names, str):
        raise ConfigurationError(f"methods={names!r}: give a list, as in methods=['{names}'].")
    made = tuple(name.upper() for name in names)
    if not made or not all(name.isalpha() for name in made):
        raise ConfigurationError(f"methods={list(names)!r} names no method.")
    return made
