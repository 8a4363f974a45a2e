"""Benchmarks of the gateway's parts, inside one process; `scripts/load.py` looks from outside."""
