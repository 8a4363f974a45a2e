"""Compression of event streams that delays nothing: each write is flushed to the client whole."""

from __future__ import annotations

import re
import zlib
from typing import Protocol

import zstandard
from aiohttp import hdrs, web

#: Fast, and with a small window: 2,000 streams at gzip's default of 256 KiB each would be 512 MiB.
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 1, 13, 5
_GZIP_FORMAT = 16
_ZSTD_WINDOW_LOG = 15
_WEIGHT = re.compile(r"(?:q\s*=\s*([01](?:\.[0-9]{0,3})?))?")


class Encoder(Protocol):
    """Compresses one response."""

    name: str

    def encode(self, data: bytes) -> bytes:
        """`data` compressed, such that the client can decode all of it at once."""
        ...

    def finish(self) -> bytes:
        """The end of the compressed data."""
        ...


class GzipEncoder:
    """RFC 1952, flushed with an empty stored block."""

    name = "gzip"

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(
            _LEVEL, zlib.DEFLATED, _GZIP_FORMAT + _WINDOW_BITS, _MEMORY_LEVEL
        )

    def encode(self, data: bytes) -> bytes:
        return self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._zlib.flush(zlib.Z_FINISH)


class ZstdEncoder:
    """RFC 8878, each write a block of its own."""

    name = "zstd"

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _LEVEL, window_log=_ZSTD_WINDOW_LOG
        )
        self._zstd = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def encode(self, data: bytes) -> bytes:
        return self._zstd.compress(data) + self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


def choose_encoder(request: web.Request) -> Encoder | None:
    """The coding that the client likes best, zstd where it has no preference; None for none."""
    weights = _weights(request.headers.getall(hdrs.ACCEPT_ENCODING, []))
    offers: tuple[type[Encoder], ...] = (ZstdEncoder, GzipEncoder)
    best = max(offers, key=lambda offer: weights.get(offer.name, 0))
    least = weights.get("identity", 0)
    weight = weights.get(best.name, 0)
    return best() if weight and weight >= least else None


def _weights(lines: list[str]) -> dict[str, float]:
    """How much each coding is liked (RFC 9110, section 12.5.3); `*` names none of them."""
    weights = {}
    for entry in ",".join(lines).lower().split(","):
        name, _, parameter = entry.partition(";")
        match = _WEIGHT.fullmatch(parameter.strip())
        if match is not None:
            weights[name.strip().removeprefix("x-")] = float(match[1] or 1)
    return weights
