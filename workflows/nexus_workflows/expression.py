"""Conditions: a small part of Python's expressions, with no names that lead anywhere and few calls.

`{{node.output}}` in a condition is a variable: its value never becomes text of the expression.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from nexus.errors import RegistrationError
from nexus.results import step_into
from nexus_workflows.errors import MissingValue, NodeFailed, told
from nexus_workflows.values import Prepared, Template, look_up, split

Evaluate: TypeAlias = Callable[[Mapping[str, Any]], Any]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "lower": lambda text: text.lower(),
    "max": max,
    "min": min,
    "round": round,
    "str": str,
    "sum": sum,
    "upper": lambda text: text.upper(),
}
_WORDS = {"true": True, "false": False, "null": None}
_LONGEST = 2000
_MOST = 100_000


class Expression(Prepared):
    """A condition, read once. Raises RegistrationError for what is not one."""

    def __init__(self, text: object) -> None:
        if isinstance(text, bool):
            text = str(text)
        if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
            raise RegistrationError(
                f"A condition is a text of at most {_LONGEST} characters, such as 'price > 3'."
            )
        self.text = text
        found: list[Template] = []
        source = ""
        for part in split(text):
            if isinstance(part, Template):
                source += f" __template_{len(found)} "
                found.append(part)
            else:
                source += part
        try:
            tree = ast.parse(source.strip(), mode="eval")
            self._evaluate = self._build(tree.body, tuple(found))
        except (SyntaxError, RecursionError, ValueError):
            raise RegistrationError(f"'{text[:80]}' is not a condition.") from None
        self.templates = tuple(found)
        self.names = frozenset(
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and self._is_free(node.id)
        )

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def evaluate(self, variables: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
        """Its value, with names from `variables` and templates from `scope`. Raises MissingValue, and
        NodeFailed for values that do not go together."""
        space = {
            **variables,
            **{f"__template_{n}": look_up(scope, t.path) for n, t in enumerate(self.templates)},
        }
        try:
            return self._evaluate(space)
        except MissingValue:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as failure:
            raise NodeFailed(
                f"The condition '{self.text[:80]}' cannot be evaluated: {told(failure)}."
            ) from None

    def _is_free(self, name: str) -> bool:
        return not name.startswith("__template_") and name not in _FUNCTIONS and name not in _WORDS

    def _build(self, node: ast.expr, found: tuple[Template, ...]) -> Evaluate:
        build = self._build
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, (str, int, float, bool)):
                return lambda _: value
            case ast.Name(id=name):
                if name in _WORDS:
                    return lambda variables: variables[name] if name in variables else _WORDS[name]
                return lambda variables: _variable(variables, name)
            case ast.Attribute(value=inner, attr=name) if not name.startswith("_"):
                of = build(inner, found)
                return lambda variables: _step(of(variables), name)
            case ast.Subscript(value=inner, slice=key) if not isinstance(key, ast.Slice):
                of, at = build(inner, found), build(key, found)
                return lambda variables: _item(of(variables), at(variables))
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                built = [build(item, found) for item in items]
                return lambda variables: [item(variables) for item in built]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                unary, inside = _UNARY[type(op)], build(operand, found)
                return lambda variables: unary(inside(variables))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                binary, first, second = _BINARY[type(op)], build(left, found), build(right, found)
                return lambda variables: _bounded(binary, first(variables), second(variables))
            case ast.BoolOp(op=op, values=values):
                return _chain([build(value, found) for value in values], stop=isinstance(op, ast.Or))
            case ast.Compare(left=left, ops=ops, comparators=others):
                parts = [build(left, found), *(build(other, found) for other in others)]
                return _comparison(parts, [_COMPARED[type(op)] for op in ops])
            case ast.IfExp(test=test, body=body, orelse=orelse):
                asked, yes, no = build(test, found), build(body, found), build(orelse, found)
                return lambda variables: yes(variables) if asked(variables) else no(variables)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                function = _FUNCTIONS[name]
                given = [build(argument, found) for argument in arguments]
                return lambda variables: function(*(argument(variables) for argument in given))
        raise RegistrationError(
            f"'{ast.unparse(node)[:60]}' has no place in a condition.",
            remedy=f"It may compare and calculate, and call {', '.join(sorted(_FUNCTIONS))}.",
        )


def _variable(variables: Mapping[str, Any], name: str) -> Any:
    try:
        return variables[name]
    except KeyError:
        known = ", ".join(sorted(key for key in variables if not key.startswith("__")))
        raise MissingValue(name, f"Known: {known}." if known else "Connect it to the condition.") from None


def _step(value: Any, name: str) -> Any:
    try:
        return step_into(value, name)
    except KeyError:
        raise MissingValue(name, "") from None


def _item(value: Any, key: Any) -> Any:
    if isinstance(value, (list, tuple, str)) and isinstance(key, int):
        return value[key]
    return _step(value, key)


def _bounded(binary: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    """A text or a list cannot be multiplied beyond what fits."""
    if binary is operator.mul:
        for one, other in ((first, second), (second, first)):
            if isinstance(one, (str, list)) and isinstance(other, int) and len(one) * other > _MOST:
                raise ValueError("too long")
    return binary(first, second)


def _chain(parts: list[Evaluate], *, stop: bool) -> Evaluate:
    def evaluate(variables: Mapping[str, Any]) -> Any:
        value: Any = None
        for part in parts:
            value = part(variables)
            if bool(value) is stop:
                break
        return value

    return evaluate


def _comparison(parts: list[Evaluate], operators: list[Callable[[Any, Any], Any]]) -> Evaluate:
    def evaluate(variables: Mapping[str, Any]) -> bool:
        left = parts[0](variables)
        for compare, part in zip(operators, parts[1:], strict=True):
            right = part(variables)
            if not compare(left, right):
                return False
            left = right
        return True

    return evaluate
