"""The browser client's parts that need no browser, run by Node; its types, and its package."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gateway.sse.parser import EventParser
from tests.unit.sse.test_parser import PIECES

NODE = Path(__file__).parents[1] / "node"
STATIC = Path(__file__).parents[2] / "gateway" / "static"
STREAMS = 2000
SEED = 20261121


def run(*command: str | Path, stdin: str = "", cwd: Path = NODE) -> str:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_parts_behave() -> None:
    output = run("node", "--test", "--test-reporter=tap", "client.test.mjs")
    assert "# fail 0" in output
    assert "# pass 0" not in output


def test_parser_reads_any_stream_as_the_python_client_does() -> None:
    """Whose own tests hold it to the specification, step by step."""
    streams = list(cut_streams())
    cases = "".join(
        json.dumps({"pieces": [base64.b64encode(piece).decode() for piece in pieces]}) + "\n"
        for pieces in streams
    )
    answers = run("node", "parse.mjs", STATIC / "sluice-parser.js", stdin=cases)
    assert [json.loads(line) for line in answers.split("\n")[:-1]] == [
        as_python_reads(one) for one in streams
    ]


def cut_streams() -> Sequence[list[bytes]]:
    """Streams of what is hard to read, each cut at random, in the middle of characters too."""
    drawn = random.Random(SEED)
    made = []
    for _ in range(STREAMS):
        stream = b"".join(drawn.choices(PIECES, k=drawn.randrange(40)))
        cuts = sorted(drawn.randrange(len(stream) + 1) for _ in range(drawn.randrange(8)))
        ends = [*cuts, len(stream)]
        made.append(
            [stream[start:end] for start, end in zip([0, *cuts], ends, strict=True) if end > start]
        )
    return made


def as_python_reads(pieces: Sequence[bytes]) -> dict[str, object]:
    parser = EventParser(max_bytes=1 << 20)
    events = [event for piece in pieces for event in parser.feed(piece)]
    told = [
        {"type": one.type, "data": one.data, "id": one.id, "hasId": one.has_id} for one in events
    ]
    return {"events": told, "retryMs": parser.retry_ms}


def modules() -> Path:
    return Path(os.environ.get("TEST_NODE_MODULES", NODE / "node_modules"))


def test_types_fit_what_people_write(tmp_path: Path) -> None:
    """And don't fit what they mustn't: `@ts-expect-error` fails where there is none."""
    (tmp_path / "node_modules").symlink_to(modules())
    (tmp_path / "use.ts").write_text((NODE / "types.ts").read_text())
    for types in STATIC.glob("*.d.ts"):
        (tmp_path / types.name).write_text(types.read_text())
    options = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable"]
    options += ["--module", "nodenext", "--skipLibCheck", "--jsx", "react-jsx"]
    run(modules() / ".bin" / "tsc", *options, "use.ts", cwd=tmp_path)


def test_package_holds_the_client_and_nothing_else(tmp_path: Path) -> None:
    (packed,) = json.loads(run("npm", "pack", "--json", "--pack-destination", tmp_path, cwd=STATIC))
    names = {file["path"] for file in packed["files"]}
    wanted = {path.name for path in STATIC.glob("sluice*.js")}
    wanted |= {path.name for path in STATIC.glob("sluice*.d.ts")}
    assert names == wanted | {"package.json"}
    assert len(wanted) >= 8


def test_package_can_be_imported_by_its_name(tmp_path: Path) -> None:
    (packed,) = json.loads(run("npm", "pack", "--json", "--pack-destination", tmp_path, cwd=STATIC))
    installed = tmp_path / "node_modules" / packed["name"]
    installed.mkdir(parents=True)
    run("tar", "-xzf", tmp_path / packed["filename"], "--strip-components=1", "-C", installed)
    script = "import { openStream } from 'sluice-client'; console.log(typeof openStream)"
    assert run("node", "--input-type=module", "-e", script, cwd=tmp_path) == "function\n"
