"""One of several writers to one database; its arguments are URL, INSTANCE, FOLDER and REQUESTS.

Says `ready`, waits for a line, writes and says how many seconds of the processor that took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from benchmarks.records import ask
from tests.auditing import running_log


async def write(url: str, instance: str, folder: Path, requests: int) -> None:
    async with running_log(folder, url, patience_s=60, instance=instance) as log:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.process_time()
        await ask(log.recorder, requests)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
