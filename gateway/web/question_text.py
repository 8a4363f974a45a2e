"""What somebody asks on a provider route, so that the words alone find its hash again."""

from __future__ import annotations

from collections.abc import Mapping


def question_of(body: Mapping[str, object], raw: bytes) -> str | bytes:
    """The newest words of the user: the last user message, or the prompt. Where there are none, as
    when a tool answers, it is the whole body, byte by byte."""
    for name in ("messages", "input"):
        items = body.get(name)
        if isinstance(items, str) and items:
            return items
        if isinstance(items, list) and (text := _last_of_user(items)):
            return text
    prompt = body.get("prompt")
    return prompt if isinstance(prompt, str) and prompt else raw


def _last_of_user(items: list[object]) -> str:
    for item in reversed(items):
        if isinstance(item, dict) and item.get("role") == "user":
            return _text(item.get("content"))
    return ""


def _text(content: object) -> str:
    """Of a message in parts, all its text, one below the other."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))
