"""Imported last by the process that others are forked from (`tests.forked`).

What all of them begin with is left alone by their collectors. Going through it once was a third of
each start.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
