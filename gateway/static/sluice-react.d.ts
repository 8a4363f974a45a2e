import type { CompleteData, ContentChunkData, HeadersOption, HeartbeatData, SnapshotData, StreamError } from './sluice.js';

export interface UseSSEStreamOptions {
  query: string;
  /** With `replace`, the text stands in place of all that came before. */
  onContent?: (content: string, data: ContentChunkData | (SnapshotData & { replace: true })) => void;
  onComplete?: (data: CompleteData) => void;
  onError?: (error: StreamError) => void;
  onHeartbeat?: (data: HeartbeatData) => void;
  /** Milliseconds; by default from the heartbeats. */
  silenceThreshold?: number;
  /** 3. */
  maxReconnectAttempts?: number;
  /** Milliseconds; 1000. */
  reconnectDelay?: number;
  /** `/api/v2/chat-stream`. */
  url?: string;
  /** What else the question says: `conversation_id` and so on. */
  body?: Record<string, unknown>;
  headers?: HeadersOption;
}

export interface UseSSEStreamResult {
  /** Asks, unless the same question is being answered. Options or a click's event may be given. */
  start: (more?: { query: string } | unknown) => void;
  /** Ends the answer at the server. */
  stop: () => Promise<Record<string, unknown>>;
  isConnected: boolean;
  isReconnecting: boolean;
  reconnectAttempts: number;
  lastMessageTime: number | null;
  traceId: string | null;
  status: 'idle' | 'submitted' | 'streaming' | 'ready' | 'error';
}

export function useSSEStream(options: UseSSEStreamOptions): UseSSEStreamResult;
