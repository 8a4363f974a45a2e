// A component that asks by itself as soon as it is mounted, as the impatient write it; StrictMode mounts
// it twice.
import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { useSSEStream } from 'sluice-client/react';

window.told = { renders: 0, beats: 0, completes: [], errors: [] };

function Asker({ query }) {
  const [text, setText] = useState('');
  const hook = useSSEStream({
    query,
    onContent: (content, { replace }) => setText((before) => (replace ? content : before + content)),
    onComplete: (data) => told.completes.push(data.reason),
    onError: (error) => told.errors.push(error.code),
    onHeartbeat: () => { told.beats += 1; },
    silenceThreshold: 15_000,
    maxReconnectAttempts: 5,
    reconnectDelay: 10,
  });
  useEffect(() => hook.start(), [query]);
  window.hook = hook;
  told.renders += 1;
  return <p id="answer">{text}</p>;
}

function App() {
  const [query, setQuery] = useState(new URLSearchParams(location.search).get('query'));
  const [isShown, show] = useState(true);
  Object.assign(window, { setQuery, show });
  return isShown ? <Asker query={query} /> : <p id="gone">gone</p>;
}

createRoot(document.body.appendChild(document.createElement('div'))).render(<StrictMode><App /></StrictMode>);
