// Reads an event stream from a fetch response. For what this gateway itself sends on the typed route
// and to the dashboard: lines end with LF, and `data` is one line.

/**
 * Yields `{name, id, data, raw}` of each block, `data` parsed. `abort` is called when nothing has
 * come for `silenceMs`; any byte counts. Ends when the response does, throws when it breaks off.
 */
export async function* readEvents(response, { silenceMs, abort }) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const silence = setTimeout(abort, silenceMs);
    const { done, value } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const blocks = (rest + decoder.decode(value, { stream: true })).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

/** Resolves after `ms`, or at once when `signal` aborts. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

function parse(block) {
  const fields = new Map(block.split('\n').map((line) => line.split(/: (.*)/s, 2)));
  const raw = fields.get('data');
  if (raw === undefined) return null;
  return { name: fields.get('event') ?? 'message', id: fields.get('id') ?? '', data: JSON.parse(raw), raw };
}
