/** Streams that outlive their connections. Times are milliseconds. */

export type StreamState = 'idle' | 'connecting' | 'open' | 'reconnecting' | 'offline' | 'paused' | 'closed';
export type Outcome = 'completed' | 'cancelled' | 'failed' | 'detached';

export interface RetryOptions {
  /** First ceiling of the random wait; 1000. */
  min?: number;
  /** Last ceiling; 30000. */
  max?: number;
  /** Reconnections in a row that brought no event; 3. */
  maxAttempts?: number;
  /** A `Retry-After` above this fails at once; 300000. */
  maxRetryAfter?: number;
  /** Whether to wait at least the server's `retry:`; true. */
  heedsRetry?: boolean;
}

export type HeadersOption = HeadersInit | (() => HeadersInit | Promise<HeadersInit>);

export interface StreamOptions {
  method?: string;
  body?: BodyInit;
  /** A function is called for each attempt, and once more after a 401. */
  headers?: HeadersOption;
  credentials?: RequestCredentials;
  /** Made for whatever isn't a GET. */
  idempotencyKey?: string;
  /** Aborting it leaves the stream, as `close()` does. */
  signal?: AbortSignal;
  fetch?: typeof fetch;
  lastEventId?: string;
  /** POSTed `{"sessionId"}` to stop, in place of DELETE on the stream. */
  stopUrl?: string;
  /** Without a byte for so long, a connection is dead; 0 never; `auto` from its heartbeats. */
  silence?: 'auto' | number;
  retry?: RetryOptions;
  /** `frame`: one `events` event per animation frame in place of single ones. */
  coalesce?: 'frame';
  /** Remember the stream for the next page; see `resumeStored`. */
  storageKey?: string;
  /** sessionStorage. */
  storage?: Storage;
  /** The largest event; 16 Mi characters. */
  maxEventChars?: number;
}

export interface ResumeStoredOptions extends Omit<StreamOptions, 'method' | 'body' | 'storageKey'> {
  /** From the stream's beginning; true. Else after the last event that was delivered. */
  fromStart?: boolean;
}

export interface StreamMetrics {
  firstEventMs: number | null;
  maxGapMs: number;
  events: number;
  bytes: number;
  heartbeats: number;
  reconnects: number;
  silences: number;
  duplicates: number;
  gaps: number;
}

export interface StreamResult {
  outcome: Exclude<Outcome, 'failed'>;
  reason: string | null;
  text: string;
  lastEventId: string;
}

export class StreamError extends Error {
  readonly code: string;
  readonly status: number | null;
  readonly retryAfterMs: number | null;
  partial: string;
}

/** A server's event. Its `type` is its name, or `message:<name>` where the client uses that name itself. */
export class StreamEvent<Data = unknown> extends Event {
  readonly name: string;
  readonly data: string;
  readonly lastEventId: string;
  readonly hasId: boolean;
  json(): Data;
}

export interface StateChangeEvent extends Event {
  readonly state: StreamState;
  readonly attempt: number;
  readonly error: StreamError | null;
  readonly retryIn: number | null;
}

export interface StartData {
  stream_id: string;
  trace_id: string;
  conversation_id: string | null;
  max_duration: number | null;
}
export interface ContentChunkData {
  content: string;
  index: number;
  trace_id: string;
  refusal?: true;
}
export interface HeartbeatData {
  stream_id: string;
  trace_id: string;
  timestamp: number;
  uptime_seconds: number;
  total_chunks: number;
  total_tokens: number;
  heartbeat_count: number;
  remaining_seconds: number | null;
  max_duration: number | null;
}
export interface SnapshotData {
  text: string;
  total_chunks: number;
  reason: 'trimmed';
  trace_id: string;
}
export interface CompleteData {
  reason: string;
  duration: number;
  total_chunks: number;
  total_tokens: number | null;
  usage: unknown;
  trace_id: string;
  finish_reason?: string | null;
  sources?: unknown[];
  tool_calls?: unknown[];
}

export interface StreamEvents {
  open: Event;
  statechange: StateChangeEvent;
  /** A `snapshot` came: replace what you show. */
  reset: Event & { readonly text: string };
  events: Event & { readonly events: StreamEvent[] };
  error: Event & { readonly error: StreamError };
  finish: Event & { readonly outcome: Outcome; readonly reason: string | null; readonly error: StreamError | null };
  message: StreamEvent;
  start: StreamEvent<StartData>;
  content_chunk: StreamEvent<ContentChunkData>;
  heartbeat: StreamEvent<HeartbeatData>;
  snapshot: StreamEvent<SnapshotData>;
  complete: StreamEvent<CompleteData>;
}

export class EventStream extends EventTarget implements AsyncIterable<StreamEvent> {
  readonly state: StreamState;
  readonly readyState: 0 | 1 | 2;
  readonly outcome: Outcome | null;
  readonly reason: string | null;
  readonly error: StreamError | null;
  readonly streamId: string | null;
  readonly url: string | null;
  readonly traceId: string | null;
  readonly lastEventId: string;
  readonly lastMessageTime: number | null;
  readonly attempts: number;
  readonly text: string;
  readonly metrics: StreamMetrics;
  readonly finished: Promise<StreamResult>;
  close(): void;
  stop(): Promise<Record<string, unknown>>;
  [Symbol.asyncIterator](): AsyncIterator<StreamEvent>;
  addEventListener<Type extends keyof StreamEvents>(
    type: Type,
    listener: (event: StreamEvents[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: ((event: StreamEvent) => void) | EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export function openStream(url: string | URL, options?: StreamOptions): EventStream;
export function resumeStream(url: string | URL, options?: Omit<StreamOptions, 'method' | 'body'>): EventStream;
export function resumeStored(storageKey: string, options?: ResumeStoredOptions): EventStream | null;

export interface ParsedEvent {
  type: string;
  data: string;
  id: string;
  hasId: boolean;
}
export class EventParser {
  constructor(options?: { lastEventId?: string; maxChars?: number });
  readonly comments: number;
  readonly retryMs: number | null;
  push(bytes: Uint8Array): ParsedEvent[];
}
export function isTerminal(event: Pick<ParsedEvent, 'type' | 'data'>): boolean;
