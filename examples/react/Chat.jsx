// A component that asks and shows the answer. With npm: `import … from 'sluice-client/react'`.
import { useState } from 'react';
import { useSSEStream } from 'sluice-client/react';

export function Chat() {
  const [question, setQuestion] = useState('');
  const [answer, setAnswer] = useState('');
  const [problem, setProblem] = useState(null);
  const { start, stop, status, isReconnecting, traceId } = useSSEStream({
    query: question,
    onContent: (text, { replace }) => setAnswer((before) => (replace ? text : before + text)),
    onError: (error) => setProblem(error.message),
  });
  const isRunning = status === 'submitted' || status === 'streaming';

  function ask(event) {
    event.preventDefault();
    setAnswer('');
    setProblem(null);
    start();
  }

  return (
    <form onSubmit={ask}>
      <label>
        Question <input value={question} onChange={(event) => setQuestion(event.target.value)} required />
      </label>
      <button disabled={isRunning}>Ask</button>
      <button type="button" onClick={stop} disabled={!isRunning}>Stop</button>
      <p role="status">{isReconnecting ? 'reconnecting' : status}</p>
      <p id="answer" aria-live="polite">{answer}</p>
      {problem && <p role="alert">{problem} <small>{traceId}</small></p>}
    </form>
  );
}
