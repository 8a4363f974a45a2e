// Made from gateway/advice.py by scripts/docs.py: what to tell people when something fails.

const UNKNOWN = told("Something went wrong.", "Try again in a moment.");

const ADVICE = new Map([
  ["There is no question.", "Type one, then send it.", "missing_query empty_query"],
  ["The question, or what came with it, is too long.", "Make it shorter.", "value_too_long body_too_large headers_too_large"],
  ["The question holds characters that can't be sent.", "Take out what isn't plain text.", "invalid_characters"],
  ["The question didn't arrive whole.", "Look at your connection, then send it again.", "body_incomplete body_timeout"],
  ["This page has asked in a way that isn't understood.", "Reload the page; if that doesn't help, tell whoever runs it.", "bad_request invalid_json invalid_type repeated invalid_header invalid_parameter missing_conversation missing_session invalid_reason unsupported_media_type unsupported_encoding bad_http bad_version bad_host bad_target bad_header bad_transfer_encoding unexpected_body bad_expectation misdirected_request method_not_allowed upgrade_not_supported idempotency_mismatch bad_cursor cursor_ahead stream_mismatch graphql_unavailable not_found invalid_control unknown_control invalid_url wrong_content_type"],
  ["You aren't signed in.", "Sign in, then ask again.", "missing_credential unauthorized invalid_authorization"],
  ["You are no longer signed in.", "Sign in again.", "token_expired invalid_token"],
  ["The key isn't valid.", "Check it, or get another.", "invalid_api_key invalid_admin_token"],
  ["You may not do this.", "Ask whoever runs it.", "forbidden cross_site_refused"],
  ["The link isn't valid for this.", "Ask whoever gave it for another one.", "invalid_link link_expired link_scope"],
  ["You have asked often in a short time.", "Wait a moment, then ask again.", "rate_limited"],
  ["Several answers are being written for you already.", "Wait until one has ended, or stop it.", "too_many_streams"],
  ["This is open in too many places.", "Close one of them.", "too_many_readers too_many_viewers"],
  ["Very many are asking just now.", "Try again in a moment.", "too_many_sessions buffers_full unavailable"],
  ["The service is being restarted.", "Try again in a moment.", "shutting_down server_shutdown"],
  ["The service can't take questions just now.", "Try again in a few minutes.", "audit_unavailable store_unavailable auth_unavailable"],
  ["Answers can't be shown here while they are being written.", "Ask whoever runs it.", "streaming_disabled"],
  ["This answer is no longer there.", "Ask again.", "stream_not_found stream_expired cursor_expired not_resumable gap"],
  ["This conversation is no longer there.", "Begin a new one.", "conversation_not_found"],
  ["The assistant can't be reached.", "Try again in a few minutes.", "upstream_unavailable"],
  ["The assistant takes too long.", "Ask again; a shorter question may help.", "upstream_timeout"],
  ["The answer broke off.", "Ask again; what was said so far is kept.", "upstream_idle upstream_truncated interrupted ended_early"],
  ["The assistant couldn't answer.", "Ask again, perhaps in other words.", "upstream_error"],
  ["A part of the answer was too large.", "Ask for a shorter one.", "event_too_large"],
  ["The answer was ended, since nobody read it.", "Ask again.", "timeout"],
  ["The answer was stopped.", "Ask again when you like.", "cancelled stopped"],
  ["The connection was lost.", "Look at your network; the answer is still there.", "connection_lost connection_failed silent offline paused"],
  ["Something went wrong in this page.", "Reload it.", "client_failed"],
  ["This browser can't show answers while they are being written.", "Use a newer one.", "no_streaming"],
  ["Something went wrong in the service.", "Try again; if it happens again, tell whoever runs it the trace id.", "internal_error"],
].flatMap(([says, todo, codes]) => codes.split(' ').map((code) => [code, told(says, todo)])));

function told(says, todo) {
  return Object.freeze({ says, do: todo });
}

/** A plain sentence for an error's code, and what to do: `{ says, do }`. */
export function advise(code) {
  return ADVICE.get(code) ?? UNKNOWN;
}
