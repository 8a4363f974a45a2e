"""The command line: options become the defaults of every answer."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

from scripts.mock.behaviour import BadOption, Behaviour
from scripts.mock.server import serving

EPILOG = """\
A request changes its own answer by the header X-Mock, the query parameter mock, or in the question:
  [mock: first=3 stall=10]   [slow] [stall] [cut] [reset] [fail] [limit] [busy] [long]

  head=S first=S             seconds before the response head, and then before the first token
  pace=MS jitter=0.33        from token to token
  tokens=N size=BYTES        how many tokens, how large each
  stall=N                    nothing more after N tokens
  cut=N drop=N reset=N       end the response early, close in mid-body, reset
  error=N                    the dialect's error event after N tokens
  status=429 retry_after=1   an error answer instead
  finish=length              or content_filter
  comments=S                 a comment every S seconds of silence
  crlf=1                     lines end in CRLF
  stamp=1                    x_emitted_ns in each event; stamp=text puts @ns into the text as well
  seed=N                     the same request, the same bytes
"""


def run(arguments: list[str] | None = None) -> int:
    """Serves until a signal ends it; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        defaults = _defaults(options)
    except BadOption as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_serve(options, defaults))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        print(f"error: can't listen on {options.host}:{options.port}: {reason}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace, defaults: Behaviour) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    where = {"host": options.host, "port": options.port}
    async with serving(defaults, **where, access_log=not options.quiet) as url:
        print(f"listening on {url}", flush=True)
        await ended.wait()


def _defaults(options: argparse.Namespace) -> Behaviour:
    given = {
        "first": None if options.first_ms is None else options.first_ms / 1000,
        "pace": options.pace_ms,
        "tokens": options.tokens,
        "size": options.size,
        "seed": options.seed,
    }
    named = " ".join(f"{name}={value}" for name, value in given.items() if value is not None)
    return Behaviour().having(named).having(options.mock)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mock_upstream.py",
        description="A demo backend that answers in the dialects of OpenAI, Anthropic and Ollama.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 picks a free one")
    parser.add_argument("--first-ms", type=float, help="silence before the first token (300)")
    parser.add_argument("--pace-ms", type=float, help="from token to token (30)")
    parser.add_argument("--tokens", type=int, help="tokens of each answer")
    parser.add_argument("--size", type=int, help="bytes of each token")
    parser.add_argument("--seed", type=int, help="makes answers reproducible")
    parser.add_argument("--mock", default="", help="any options, such as 'stall=10 crlf=1'")
    parser.add_argument("--quiet", action="store_true", help="no line per request")
    return parser
