export interface Advice {
  /** A plain sentence for whoever typed the question. */
  readonly says: string;
  /** What they can do about it. */
  readonly do: string;
}

/** What to tell people of an error with this code; something general for one that isn't known. */
export function advise(code: string): Advice;
