// Several async generators as one, in order of arrival. Knows nothing of what they carry.

/**
 * Yields from all `sources` as values come. When the reader stops early or a source throws, `abort` is called so that
 * sources that wait can wake, and all are ended before this ends.
 */
export async function* mergeIterables<T>(sources: readonly AsyncGenerator<T>[], abort: () => void): AsyncGenerator<T> {
  const arrived: (IteratorYieldResult<T> & { readonly at: number })[] = [];
  let failure: { readonly error: unknown } | null = null;
  let running = sources.length;
  let wake: () => void = () => {};
  const ask = (at: number) => {
    sources[at]!.next().then(
      (next) => {
        if (next.done === true) running--;
        else arrived.push({ done: false, value: next.value, at });
        wake();
      },
      (error: unknown) => {
        failure ??= { error };
        wake();
      },
    );
  };
  for (const at of sources.keys()) ask(at);
  let finished = false;
  try {
    for (;;) {
      for (const { value, at } of arrived.splice(0)) {
        yield value;
        ask(at);
      }
      if (failure !== null) throw (failure as { readonly error: unknown }).error;
      if (arrived.length > 0) continue;
      if (running === 0) break;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    finished = true;
  } finally {
    if (!finished) {
      abort();
      await Promise.allSettled(sources.map((source) => source.return(undefined)));
    }
  }
}
