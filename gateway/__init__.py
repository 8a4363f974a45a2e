"""Sluice: a gateway whose streams survive."""

__version__ = "0.1.0"
