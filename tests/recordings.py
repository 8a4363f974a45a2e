"""Small whole streams as backends send them: four content tokens, one of them beyond ASCII.

Each says `SAID`. `tests.backend.streaming` plays them.
"""

from __future__ import annotations

SAID = "Grüße aus Łódź 👋🏽."
TOKENS = ("Grüße", " aus", " Łódź 👋🏽", ".")

CHAT_STREAM = """\
data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},\
"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[{"index":0,"delta":{"content":"Grüße"},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[{"index":0,"delta":{"content":" aus"},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[{"index":0,"delta":{"content":" Łódź 👋🏽"},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[{"index":0,"delta":{"content":"."},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1753711402,"model":"m",\
"choices":[],"usage":{"prompt_tokens":13,"completion_tokens":4,"total_tokens":17}}

data: [DONE]

""".encode()

_RESPONSE = """\
"id":"resp_1","object":"response","created_at":1753711408,"error":null,\
"incomplete_details":null,"instructions":null,"metadata":{},"model":"m",\
"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0"""
_PLACE = '"item_id":"msg_1","output_index":0,"content_index":0'
_DELTA = "response.output_text.delta"
_PART = f'{{"type":"output_text","text":"{SAID}","annotations":[]}}'
_ITEM = f"""\
{{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{_PART}]}}"""

RESPONSES_STREAM = f"""\
event: response.created
data: {{"type":"response.created","sequence_number":0,\
"response":{{{_RESPONSE},"status":"in_progress","output":[],"usage":null}}}}

event: response.in_progress
data: {{"type":"response.in_progress","sequence_number":1,\
"response":{{{_RESPONSE},"status":"in_progress","output":[],"usage":null}}}}

event: response.output_item.added
data: {{"type":"response.output_item.added","sequence_number":2,"output_index":0,\
"item":{{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}}}

event: response.content_part.added
data: {{"type":"response.content_part.added","sequence_number":3,{_PLACE},\
"part":{{"type":"output_text","text":"","annotations":[]}}}}

event: {_DELTA}
data: {{"type":"{_DELTA}","sequence_number":4,{_PLACE},"delta":"Grüße","logprobs":[]}}

event: {_DELTA}
data: {{"type":"{_DELTA}","sequence_number":5,{_PLACE},"delta":" aus","logprobs":[]}}

event: {_DELTA}
data: {{"type":"{_DELTA}","sequence_number":6,{_PLACE},"delta":" Łódź 👋🏽","logprobs":[]}}

event: {_DELTA}
data: {{"type":"{_DELTA}","sequence_number":7,{_PLACE},"delta":".","logprobs":[]}}

event: response.output_text.done
data: {{"type":"response.output_text.done","sequence_number":8,{_PLACE},\
"text":"{SAID}","logprobs":[]}}

event: response.content_part.done
data: {{"type":"response.content_part.done","sequence_number":9,{_PLACE},"part":{_PART}}}

event: response.output_item.done
data: {{"type":"response.output_item.done","sequence_number":10,"output_index":0,"item":{_ITEM}}}

event: response.completed
data: {{"type":"response.completed","sequence_number":11,\
"response":{{{_RESPONSE},"status":"completed","output":[{_ITEM}],\
"usage":{{"input_tokens":13,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":4,\
"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":17}}}}}}

""".encode()

ANTHROPIC_STREAM = """\
event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",\
"model":"m","content":[],"stop_reason":null,"stop_sequence":null,\
"usage":{"input_tokens":13,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Grüße"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" aus"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" Łódź 👋🏽"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"."}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},\
"usage":{"output_tokens":4}}

event: message_stop
data: {"type":"message_stop"}

""".encode()

RAG_STREAM = """\
event: content
data: {"content":"Grüße"}

event: content
data: {"content":" aus"}

event: content
data: {"content":" Łódź 👋🏽"}

event: content
data: {"content":"."}

event: sources
data: {"sources":[{"title":"Łódź","url":"https://example.org/lodz","snippet":"A city."}]}

event: complete
data: {"done":true,"finish_reason":"stop","usage":{"input_tokens":13,"output_tokens":4}}

""".encode()

OLLAMA_STREAM = """\
{"model":"m","created_at":"2025-07-28T14:03:22Z",\
"message":{"role":"assistant","content":"Grüße"},"done":false}
{"model":"m","created_at":"2025-07-28T14:03:22Z",\
"message":{"role":"assistant","content":" aus"},"done":false}
{"model":"m","created_at":"2025-07-28T14:03:22Z",\
"message":{"role":"assistant","content":" Łódź 👋🏽"},"done":false}
{"model":"m","created_at":"2025-07-28T14:03:22Z",\
"message":{"role":"assistant","content":"."},"done":false}
{"model":"m","created_at":"2025-07-28T14:03:23Z",\
"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",\
"prompt_eval_count":13,"eval_count":4}
""".encode()
