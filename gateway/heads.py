"""Heads of messages that aiohttp's parser has handed out, and that nobody needs any more."""

from __future__ import annotations

import gc

from aiohttp.typedefs import RawHeaders
from multidict import CIMultiDict, CIMultiDictProxy

NO_HEADERS = CIMultiDictProxy(CIMultiDict[str]())


def forget_head(parser: object, raw_headers: RawHeaders) -> None:
    """Empties the parser's lists of a message's headers, if it hasn't begun with the next one.

    They are a KiB or two for as long as a stream runs. The parser is C and has no call for it, but
    it tells the garbage collector what it holds. Names in a trailer aren't compared with those of
    the head any more; nobody reads trailers here.
    """
    first = raw_headers[0] if raw_headers else None
    held: list[list[object] | set[object]] = []
    is_of_it = False
    for one in gc.get_referents(parser):
        if type(one) is list and one:
            is_of_it |= one[0] is first
            held.append(one)
        elif type(one) is set:
            held.append(one)
    if is_of_it:
        for one in held:
            one.clear()
