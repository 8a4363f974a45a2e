// The official SDKs for Node, driven by tests/sdks.py: reads calls as JSON on stdin, makes them all
// at the same time, and prints for each what it gave, the error that came after it, and the headers.

import { createRequire } from "node:module";
import { join } from "node:path";
import { text } from "node:stream/consumers";

const require = createRequire(join(process.env.TEST_NODE_MODULES, "from-here.js"));
const { OpenAI } = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");

const { url, key, calls } = JSON.parse(await text(process.stdin));
const clients = {
  openai: new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 }),
  anthropic: new Anthropic({ apiKey: key, baseURL: url, maxRetries: 0 }),
};

/** Makes a call such as `chat.completions.create`. */
function make({ sdk, method, body, headers }) {
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

async function ask(call) {
  const outcome = { events: [], failure: null, headers: {} };
  try {
    const { data, headers } = await open(make(call));
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

process.stdout.write(JSON.stringify(await Promise.all(calls.map(ask))));
