"""What a piece of code reads, assigns and can reach, as far as it can be seen without running it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_HIDDEN = frozenset({"__import__", "eval", "exec", "compile", "importlib", "globals", "locals", "vars"})
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, slots=True)
class Reading:
    """`assigned` are the variables that are its own, `needed` those that must come from outside, `wanted`
    those that may; `mentioned` are all names that it uses. `reaches` says that it may touch more than its
    inputs, as a database; `dynamic` that its inputs are used in a way that cannot be seen."""

    assigned: frozenset[str]
    needed: frozenset[str]
    wanted: frozenset[str]
    mentioned: frozenset[str]
    reaches: bool
    dynamic: bool

    @classmethod
    def of(cls, tree: ast.Module, known: frozenset[str]) -> Reading:
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        stored = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | set(_declared(tree))
        loaded = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        asked = _Asked.of(tree)
        stars = any(isinstance(node, ast.alias) and node.name == "*" for node in ast.walk(tree))
        free = set[str]() if stars else loaded - stored - known
        return cls(
            assigned=frozenset(_assigned(tree)),
            needed=frozenset((asked.taken | free) - asked.tried),
            wanted=frozenset(asked.tried),
            mentioned=frozenset(loaded),
            reaches=any(_foreign(node) for node in ast.walk(tree)) or bool(loaded & _HIDDEN),
            dynamic=asked.dynamic,
        )


@dataclass(slots=True)
class _Asked:
    """How `input_data` is used: `taken` are keys that must be there, `tried` those that need not."""

    taken: set[str]
    tried: set[str]
    dynamic: bool

    @classmethod
    def of(cls, tree: ast.Module) -> _Asked:
        taken: set[str] = set()
        tried: set[str] = set()
        uses = plain = 0
        for node in ast.walk(tree):
            if _is_inputs(node):
                uses += 1
            match node:
                case ast.Subscript(value=value, slice=ast.Constant(value=str(key))) if _is_inputs(value):
                    taken.add(key)
                    plain += 1
                case ast.Call(
                    func=ast.Attribute(value=value, attr="get"), args=[ast.Constant(value=str(key)), *_]
                ) if _is_inputs(value):
                    tried.add(key)
                    plain += 1
                case ast.Compare(
                    left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[value]
                ) if _is_inputs(value):
                    tried.add(key)
                    plain += 1
        return cls(taken, tried, dynamic=uses > plain)


def _is_inputs(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "input_data"


def _assigned(tree: ast.AST) -> Iterator[str]:
    """Names that are bound to values at the top level: no functions, classes or modules."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _SCOPES):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if not isinstance(node, _COMPREHENSIONS):
            yield from _assigned(node)


def _declared(tree: ast.Module) -> Iterator[str]:
    """Names that are bound in other ways than by assignment, wherever."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]
            case ast.ExceptHandler(name=str(name)):
                yield name
            case (
                ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name))
            ):
                yield name


def _foreign(node: ast.AST) -> bool:
    """Whether it brings in code that may lead to a database."""
    match node:
        case ast.Import(names=names):
            return any(_root(alias.name) not in sys.stdlib_module_names for alias in names)
        case ast.ImportFrom(module=module, level=level):
            return bool(level) or _root(module or "") not in sys.stdlib_module_names
    return False


def _root(module: str) -> str:
    return module.partition(".")[0]
