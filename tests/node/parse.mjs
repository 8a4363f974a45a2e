// Reads cases from standard input, one JSON object a line: {"pieces": [base64, …]}; answers each with
// what the browser client's parser makes of it.
import { createInterface } from 'node:readline';

const { EventParser } = await import(process.argv[2]);

for await (const line of createInterface({ input: process.stdin })) {
  const parser = new EventParser();
  const events = JSON.parse(line).pieces.flatMap((piece) => parser.push(Buffer.from(piece, 'base64')));
  console.log(JSON.stringify({ events, retryMs: parser.retryMs }));
}
