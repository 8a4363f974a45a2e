"""What the code says about itself, read off its syntax, for the tests of the documentation."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gateway import errors

ROOT = Path(__file__).parents[1]
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "log"})


@dataclass(slots=True)
class LogEvent:
    """`levels` lacks those that are decided when the line is written."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def modules(folder: str = "gateway", *, without: str | None = None) -> Iterator[ast.Module]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        if without is None or not path.is_relative_to(ROOT / without):
            yield ast.parse(path.read_text())


@cache
def error_codes() -> dict[str, set[int]]:
    """Every code that the gateway answers with, and the statuses that stand beside it."""
    codes: dict[str, set[int]] = defaultdict(set)
    for tree in modules(without="gateway/client"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                _add_class(codes, node)
            elif isinstance(node, ast.Call):
                _add_call(codes, node)
    return dict(codes)


@cache
def client_codes() -> set[str]:
    """The codes of the Python client's own errors."""
    return {
        code
        for tree in modules("gateway/client")
        for call in _calls(tree)
        if isinstance(call.func, ast.Name)
        and call.func.id == "StreamError"
        and (code := _text(call.args[0]))
    }


@cache
def log_events() -> dict[str, LogEvent]:
    """Every event name that is logged."""
    events: dict[str, LogEvent] = defaultdict(LogEvent)
    for tree in modules():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in _calls(function):
                if _is_log_call(call):
                    _add_log_call(events, call, function, tree)
    return dict(events)


@cache
def typed_events() -> dict[str, set[str]]:
    """The fields of each typed event: of the dict that becomes its data, and those put in later."""
    events: dict[str, set[str]] = defaultdict(set)
    tree = ast.parse((ROOT / "gateway/stream/wires/typed.py").read_text())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in _calls(function):
            if isinstance(call.func, ast.Name) and call.func.id == "_event":
                events[_text(call.args[0]) or ""] |= _keys(call.args[1], function, tree)
    return dict(events)


def _add_class(codes: dict[str, set[int]], node: ast.ClassDef) -> None:
    for statement in node.body:
        if not isinstance(statement, ast.Assign) or _names(statement) != ["code"]:
            continue
        if code := _text(statement.value):
            codes[code] |= _default_status(node.name)


def _add_call(codes: dict[str, set[int]], call: ast.Call) -> None:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    code = _text(keywords.get("code"))
    if code is None:
        return
    status = keywords.get("status")
    if status is None:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        codes[code] |= _default_status(name)
    elif isinstance(status, ast.Constant) and isinstance(status.value, int):
        codes[code].add(status.value)
    else:
        codes[code] |= set()


def _default_status(class_name: str) -> set[int]:
    status = getattr(getattr(errors, class_name, None), "status", None)
    return {status} if isinstance(status, int) else set()


def _is_log_call(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "logger"
        and function.attr in _LOG_METHODS
    )


def _add_log_call(
    events: dict[str, LogEvent],
    call: ast.Call,
    function: ast.FunctionDef | ast.AsyncFunctionDef,
    tree: ast.Module,
) -> None:
    assert isinstance(call.func, ast.Attribute)
    method = call.func.attr
    name = _text(call.args[1 if method == "log" else 0])
    assert name is not None, "an event's name is a constant"
    if method != "log":
        events[name].levels.add("error" if method == "exception" else method)
    for keyword in call.keywords:
        if keyword.arg == "extra":
            events[name].fields |= _keys(keyword.value, function, tree)


def _keys(
    value: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef, tree: ast.Module
) -> set[str]:
    """The keys of the dict that an expression stands for."""
    match value:
        case ast.Dict():
            return {key for node in value.keys if (key := _text(node))}
        case ast.BinOp():
            return _keys(value.left, function, tree) | _keys(value.right, function, tree)
        case ast.Name():
            return _keys_put_into(value.id, function, tree)
        case ast.Call(func=ast.Name(id=name)):
            return _keys_returned_by(name, tree)
    raise AssertionError(f"can't tell the keys of {ast.unparse(value)}")


def _keys_put_into(
    name: str, function: ast.FunctionDef | ast.AsyncFunctionDef, tree: ast.Module
) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == name:
            found |= _keys(node.value, function, tree)
        elif isinstance(target, ast.Subscript) and ast.unparse(target.value) == name:
            found |= {key for key in [_text(target.slice)] if key}
    return found


def _keys_returned_by(name: str, tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name == name:
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    found |= _keys(node.value, function, tree)
    return found


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _names(statement: ast.Assign) -> list[str]:
    return [target.id for target in statement.targets if isinstance(target, ast.Name)]


def _text(node: ast.expr | None) -> str | None:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else None  # type: ignore[union-attr]
