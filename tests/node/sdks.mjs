// The official SDKs for Node, driven by tests/sdks.py: each line of stdin is JSON with calls, which
// are made all at the same time. The line printed for it has for each call what it gave, the error
// that came after it, and the response's headers.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(join(process.env.TEST_NODE_MODULES, "from-here.js"));
const { OpenAI } = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");

function makeClients(url, apiKey) {
  return {
    openai: new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 }),
    anthropic: new Anthropic({ apiKey, baseURL: url, maxRetries: 0 }),
  };
}

/** Makes a call such as `chat.completions.create`. */
function make(clients, { sdk, method, body, headers }) {
  const names = method.split(".");
  const name = names.pop();
  const owner = names.reduce((object, key) => object[key], clients[sdk]);
  return name === "list" ? owner[name]({ headers }) : owner[name](withFile(body), { headers });
}

function withFile(body) {
  return body.file ? { ...body, file: new File([body.file.content], body.file.name) } : body;
}

/** What a call gives: a promise with its response's headers, or a helper that is the stream. */
async function open(made) {
  if (typeof made.then !== "function") {
    return { data: made, headers: {} };
  }
  const { data, response } = await made.withResponse();
  return { data, headers: Object.fromEntries(response.headers) };
}

async function ask(key, call) {
  const outcome = { events: [], failure: null, headers: {} };
  try {
    const { data, headers } = await open(make(makeClients(call.url, key), call));
    outcome.headers = headers;
    if (!(Symbol.asyncIterator in data)) {
      outcome.events.push(data);
      return outcome;
    }
    for await (const event of data) {
      outcome.events.push(event);
    }
  } catch (error) {
    outcome.failure = [error.constructor.name, error.status ?? null, error.message];
  }
  return outcome;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { key, calls } = JSON.parse(line);
  const outcomes = await Promise.all(calls.map((call) => ask(key, call)));
  process.stdout.write(`${JSON.stringify(outcomes)}\n`);
}
