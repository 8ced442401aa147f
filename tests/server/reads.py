"""Which parameters an endpoint's source reads, found by walking its syntax tree and those of the functions it calls.

A name may be a constant, an element of a module's tuple, the value of an enumeration's member, or an argument that a
helper passes on. What cannot be resolved is an error: such a read could hide a parameter from the document.
"""

from __future__ import annotations

import ast
import enum
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any

READERS = frozenset(("text", "flag", "integer", "number", "many", "split", "has", "given", "last"))
_PACKAGE = "qmail_server.http."
Names = frozenset[str]
_NONE: Names = frozenset()


def reads(function: Callable[..., Any]) -> Names:
    """The parameters a function reads."""
    return _walk(_plain(function), {}, ())


def _plain(function: Any) -> FunctionType:
    found = inspect.unwrap(function)
    assert isinstance(found, FunctionType)
    return found


def _walk(function: FunctionType, given: Mapping[str, Names], above: tuple[FunctionType, ...]) -> Names:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    scope = _Scope(function, {**_defaults(tree), **given})
    scope.learn(tree)
    found: set[str] = set()
    for call in _calls(tree):
        if scope.is_read(call):
            names = frozenset[str]().union(*(scope.names(argument) for argument in _read_names(call)))
            assert names, f"{function.__qualname__}: {ast.unparse(call)} reads what this test cannot tell"
            found |= names
            continue
        called = scope.function(call.func)
        if called is not None and called not in above:
            found |= _walk(called, scope.arguments(called, call), (*above, function))
    return frozenset(found)


def _calls(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    return (node for statement in tree.body for node in ast.walk(statement) if isinstance(node, ast.Call))


def _read_names(call: ast.Call) -> list[ast.expr]:
    assert isinstance(call.func, ast.Attribute)
    several = call.func.attr in ("text", "has")
    return call.args if several else call.args[:1]


def _defaults(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Names]:
    places = tree.args.args[len(tree.args.args) - len(tree.args.defaults) :]
    pairs = zip(places, tree.args.defaults, strict=True)
    return {
        place.arg: frozenset((value.value,))
        for place, value in pairs
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


class _Scope:
    """What names mean inside one function."""

    def __init__(self, function: FunctionType, given: Mapping[str, Names]) -> None:
        self._globals = function.__globals__
        self._known: dict[str, Names] = dict(given)

    def learn(self, tree: ast.AST) -> None:
        """Loop variables and simple assignments of names."""
        for node in ast.walk(tree):
            if isinstance(node, ast.comprehension | ast.For) and isinstance(node.target, ast.Name):
                self._bind(node.target.id, self.names(node.iter))
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._bind(node.targets[0].id, self.names(node.value))

    def _bind(self, name: str, values: Names) -> None:
        if values:
            self._known[name] = self._known.get(name, _NONE) | values

    def names(self, node: ast.AST) -> Names:
        """The texts an expression may stand for."""
        if isinstance(node, ast.Constant):
            return frozenset((node.value,)) if isinstance(node.value, str) else _NONE
        if isinstance(node, ast.Name):
            return self._known.get(node.id) or _texts(self._globals.get(node.id))
        if isinstance(node, ast.Starred | ast.Attribute):
            return self.names(node.value)
        if isinstance(node, ast.Tuple):
            return _NONE.union(*map(self.names, node.elts))
        if isinstance(node, ast.BoolOp):  # a or b
            return next(filter(None, map(self.names, node.values)), _NONE)
        return _NONE

    def is_read(self, call: ast.Call) -> bool:
        """Whether this is `params.text(...)` or one of its like."""
        if not isinstance(call.func, ast.Attribute) or call.func.attr not in READERS:
            return False
        return ast.unparse(call.func.value) in ("params", "call.params")

    def function(self, node: ast.expr) -> FunctionType | None:
        """The function of a surface that this names."""
        found: Any = None
        if isinstance(node, ast.Name):
            found = self._globals.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = getattr(self._globals.get(node.value.id), node.attr, None)
        found = inspect.unwrap(found) if callable(found) else None
        return found if isinstance(found, FunctionType) and found.__module__.startswith(_PACKAGE) else None

    def arguments(self, called: FunctionType, call: ast.Call) -> dict[str, Names]:
        """What the parameters of a called function stand for."""
        code = called.__code__
        places = code.co_varnames[: code.co_argcount]
        found = {place: self.names(argument) for place, argument in zip(places, call.args, strict=False)}
        if code.co_flags & inspect.CO_VARARGS:
            rest = call.args[code.co_argcount :]
            name = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
            found[name] = _NONE.union(*(self.names(argument) for argument in rest))
        found |= {word.arg: self.names(word.value) for word in call.keywords if word.arg}
        return {name: values for name, values in found.items() if values}


def _texts(value: Any) -> Names:
    if isinstance(value, str):
        return frozenset((value,))
    if isinstance(value, tuple):
        return frozenset(item for item in value if isinstance(item, str))
    if isinstance(value, type) and issubclass(value, enum.Enum):
        return frozenset(member.value for member in value if isinstance(member.value, str))
    return _NONE
