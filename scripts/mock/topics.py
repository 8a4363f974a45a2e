"""The texts: a few good paragraphs, each found by a word of the question.

Nothing of a question is ever quoted in an answer. "Weather" calls a tool where there is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A document that an answer rests on."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True, slots=True)
class Topic:
    words: re.Pattern[str]
    text: str
    sources: tuple[Source, ...]


def _about(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})", re.IGNORECASE)


REFUSAL = (
    "I'm sorry, but I can't help with that. If there is something near to it that would be of use, "
    "tell me what you want to achieve and I'll gladly look for another way."
)
ARGUMENTS = ('{"', "city", '":"', "Zürich", '","', "unit", '":"', "celsius", '"}')

WEATHER = Topic(
    _about("weather", "forecast", "rain"),
    "Tomorrow in Zürich begins with fog over the lake that should be gone by ten. After that "
    "expect a bright, dry day with a light wind from the north-east and about 18 °C in the "
    "afternoon. The evening turns cool quickly, so take a jacket if you plan to sit outside. Rain "
    "isn't likely before the weekend: a front arrives on Saturday night, and Sunday looks wet "
    "until noon, with snow on the passes above 2,200 metres.",
    (
        Source(
            "Forecast for the Swiss plateau",
            "https://weather.example.org/plateau",
            "High pressure holds until Friday; fog in the mornings, sun after ten o'clock.",
        ),
    ),
)

TOPICS = (
    Topic(
        _about("resum", "reconnect", "last-event-id", "lost connection", "offline"),
        "A stream can be resumed when two things are true: every event has a name, and somebody "
        "still remembers the events that were sent. The name is the event's id. A browser keeps "
        "the last one it saw and sends it back as Last-Event-ID when it reconnects, without any "
        "help from the page. The server then looks for that id in its log, sends what came after "
        "it and goes on live. The client sees neither a gap nor a repetition.\n\n"
        "Most servers get the second half wrong. They tie the work to the connection, so that a "
        "train entering a tunnel throws away an answer that was already paid for. It is better to "
        "let the work write into a log, and to let each connection be no more than a reader of it "
        "— then a dropped connection costs nothing, and two tablets may read the same answer.",
        (
            Source(
                "Event ids and the reconnection cursor",
                "https://docs.example.org/streams/resume",
                "The id field sets the last event ID buffer; it is sent as a header on reconnect.",
            ),
            Source(
                "Detaching work from connections",
                "https://engineering.example.org/detached-producers",
                "One producer writes a log, any number of readers follow it with a cursor.",
            ),
        ),
    ),
    Topic(
        _about("stream", "sse", "server-sent", "event", "websocket", "heartbeat"),
        "Server-Sent Events are the simplest way to push text from a server to a browser. The "
        "client sends an ordinary HTTP request and the server answers with text/event-stream, "
        "leaving the response open. Each event is a few lines of text: an optional name, an "
        "optional id and one or more lines of data, closed by an empty line. That is almost the "
        "whole format.\n\n"
        "Because it is plain HTTP, it passes through proxies, works with the usual authentication "
        "and needs no upgrade handshake. Two things deserve care. First, intermediaries like to "
        "buffer; switch that off, or the words arrive in one lump at the end. Second, silence is "
        "ambiguous, so send a heartbeat every few seconds and let the client treat a longer pause "
        "as a broken connection. For traffic in both directions a WebSocket fits better, but for "
        "an answer that grows word by word, one direction is exactly enough.",
        (
            Source(
                "Server-sent events, explained",
                "https://docs.example.org/streams/format",
                "An event stream is UTF-8 text; a blank line dispatches the event.",
            ),
            Source(
                "Why your proxy buffers and how to stop it",
                "https://engineering.example.org/proxy-buffering",
                "X-Accel-Buffering: no turns off response buffering for a single answer.",
            ),
            Source(
                "Choosing between SSE and WebSockets",
                "https://docs.example.org/streams/choosing",
                "If the client only listens, the one-way protocol is easier to run.",
            ),
        ),
    ),
    Topic(
        _about("gdpr", "retention", "privacy", "personal data", "erasure", "audit", "delete my"),
        "Keep personal data for as long as the purpose needs it, and decide that period before "
        "you collect anything. The GDPR names no number of days; it asks you to justify yours. "
        "For operational logs, ninety days is a common choice: long enough to investigate an "
        "incident, short enough that an old log isn't a liability.\n\n"
        "Retention works best when it is automatic. A sweep that runs every night is worth more "
        "than a policy in a drawer. Collect less in the first place, too: a keyed hash of a "
        "question often proves what happened just as well as the question itself. When a person "
        "asks for erasure you have a month to act, and the request covers copies, exports and "
        "back-ups within reason. What you may keep is the proof that something was erased — the "
        "date, the case and the fact, without the content.",
        (
            Source(
                "Storage limitation in practice",
                "https://privacy.example.org/storage-limitation",
                "Article 5(1)(e): kept no longer than is necessary for the purposes.",
            ),
            Source(
                "Answering an erasure request",
                "https://privacy.example.org/erasure",
                "Without undue delay and in any event within one month of receipt (Article 12).",
            ),
        ),
    ),
    Topic(
        _about("coffee", "espresso", "brew", "café"),
        "For a good cup by hand, weigh before you pour. Take 15 grams of coffee to 250 grams of "
        "water, ground about as coarse as sea salt. Bring the water to the boil and wait half a "
        "minute, which leaves it near 94 °C. Rinse the paper filter so that it doesn't lend its "
        "taste to the cup.\n\n"
        "Pour just enough to wet the grounds and wait forty seconds while they bloom: fresh "
        "coffee rises like dough, stale coffee lies there. Then pour slowly in circles, in three "
        "stages, and let it run through between them. The whole should take about three minutes. "
        "If it tastes sour, grind finer; if it is bitter, grind coarser; if it is merely dull, "
        "the beans are to blame. Change one thing at a time. And drink it without hurry — a "
        "good filter coffee shows most of its fruit when it has cooled a little.",
        (
            Source(
                "A recipe for filter coffee",
                "https://kitchen.example.org/filter-coffee",
                "60 grams a litre, 93 °C, three minutes: the starting point, not the law.",
            ),
            Source(
                "What the bloom tells you",
                "https://kitchen.example.org/bloom",
                "Carbon dioxide escapes from fresh beans and makes the bed rise.",
            ),
        ),
    ),
    Topic(
        _about("poem", "poetry", "verse", "haiku", "rhyme"),
        "The Lock-keeper\n\n"
        "All night the river brings its freight of rain,\n"
        "and leans against the gate, and leans again.\n"
        "He lets it through by inches, pound by pound,\n"
        "until the upper water finds the ground\n"
        "of lower water, and the two are one,\n"
        "and what was hurry has become a run\n"
        "of quiet silver, level with the stone.\n\n"
        "A boat slides out. The keeper stays alone,\n"
        "and writes it in his book: the hour, the name,\n"
        "the height of water, never whence it came\n"
        "nor what it carried underneath the sheet —\n"
        "only that nothing spilled, and all's complete.\n"
        "Then winds the paddles down, and hears once more\n"
        "the river put its shoulder to the door.",
        (
            Source(
                "Poems about rivers and canals",
                "https://library.example.org/poems/canals",
                "A small anthology of locks, weirs and the people who keep them.",
            ),
        ),
    ),
    Topic(
        _about("test", "debug", "latency", "slow", "performance", "metric"),
        "Begin with the number that the user feels. In a streamed answer that is the time to the "
        "first token, and after it the longest gap between two tokens — not the average, which "
        "hides every stutter. Measure both at the client, because a proxy that buffers looks "
        "perfect from the server's side.\n\n"
        "Then find where the time goes before you change anything. Give each request a trace id, "
        "carry it through every hop, and write down when the first byte arrived at each. Usually "
        "one hop owns nearly all of the delay. Look at the 99th percentile next to the median: if "
        "they are far apart, something queues. And repeat the measurement after the change, on the "
        "same machine and with the same load, otherwise you have an opinion instead of a result.",
        (
            Source(
                "Latency that people notice",
                "https://engineering.example.org/felt-latency",
                "The first token sets the impression; the longest gap breaks it.",
            ),
            Source(
                "Percentiles, not averages",
                "https://engineering.example.org/percentiles",
                "A mean of 40 ms can hide a second of silence for one user in a hundred.",
            ),
        ),
    ),
    WEATHER,
)

DEFAULT = Topic(
    _about(""),
    "Here is a short answer, sent the way a language model would send it: one word after the "
    "other, with a small pause before the first. This is a demo backend. It knows a few subjects "
    "well enough to be pleasant — how event streams work and how they resume, how long data "
    "should be kept, how to brew a decent coffee — and it will write you a poem about a "
    "lock-keeper if you ask for one.\n\n"
    "Everything between you and these words is real, though: the connection, the numbered events, "
    "the heartbeat while nothing is said. Close the tab in the middle of a sentence and open it "
    "again, and the rest should be waiting for you. Press stop, and the backend stops too. When "
    "you have seen enough, point the gateway at a model of your own and ask something harder.",
    (
        Source(
            "About this demo",
            "https://docs.example.org/demo",
            "A backend with prepared answers that behaves, and misbehaves, like a real one.",
        ),
        Source(
            "Connecting a model of your own",
            "https://docs.example.org/backends",
            "One address and one dialect are enough; a key, if the backend wants one.",
        ),
    ),
)
