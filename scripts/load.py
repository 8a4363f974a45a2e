"""Measures a streaming gateway: `python scripts/load.py --help` says how."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Runs one command; the exit code."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from scripts.loading.cli import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
