"""Runs the demo backend: `python scripts/mock_upstream.py --port 9000`. `--help` says the rest."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Runs until SIGTERM or SIGINT; the exit code."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from scripts.mock.cli import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
