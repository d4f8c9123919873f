// Several async generators as one, in order of arrival. Knows nothing of what they carry.

/**
 * Yields from all `sources` as values come. When the reader stops early or a source throws, `abort` is called so that
 * sources that wait can wake, and all are ended before this ends.
 */
export async function* mergeIterables<T>(sources: readonly AsyncGenerator<T>[], abort: () => void): AsyncGenerator<T> {
  const waiting = new Map<number, Promise<{ readonly at: number; readonly next: IteratorResult<T> }>>();
  const ask = (at: number) => {
    const promise = sources[at]!.next().then((next) => ({ at, next }));
    // A rejection that nobody awaits any more must not end the process.
    promise.catch(() => {});
    waiting.set(at, promise);
  };
  for (const at of sources.keys()) ask(at);
  let finished = false;
  try {
    while (waiting.size > 0) {
      const { at, next } = await Promise.race(waiting.values());
      if (next.done === true) waiting.delete(at);
      else {
        yield next.value;
        ask(at);
      }
    }
    finished = true;
  } finally {
    if (!finished) {
      abort();
      await Promise.allSettled(sources.map((source) => source.return(undefined)));
    }
  }
}
