"""A bar while it runs, on a terminal with rich; plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[float, str], None]


@contextmanager
def progress(title: str) -> Iterator[Tell]:
    """Yields a function of the share that is done and a word about it."""
    try:
        from rich import progress as bars
    except ImportError:
        bars = None  # type: ignore[assignment]
    if bars is None or not sys.stderr.isatty():
        yield lambda _share, _word: None
        return
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.fields[word]}"),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, word="")
        yield lambda share, word: bar.update(task, completed=share, word=word)
