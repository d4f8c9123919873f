// The engine's own thread: an entry point by itself. The first message starts it; everything else is host.ts,
// but for the vocabulary, which is prepared elsewhere and only kept here.
import type { VocabularyData } from "../grammar/vocabulary.ts";
import { grammarConstraints } from "./grammar_constraints.ts";
import { EngineHost } from "./host.ts";
import { openEngine } from "./load.ts";
import { type FromEngine, type ToEngine, toWire } from "./protocol.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToEngine>) => void) | null;
  postMessage(message: FromEngine): void;
};

/** How often an idle engine shows that it is alive. */
const BEAT_MS = 500;

let host: EngineHost | null = null;
let vocabulary: VocabularyData | null = null;

self.onmessage = ({ data }) => {
  if (data.kind === "start") void start(data);
  else if (data.kind === "vocabulary") vocabulary = data.vocabulary;
  else host?.handle(data);
};

async function start({ options, beat }: Extract<ToEngine, { kind: "start" }>): Promise<void> {
  const post = (message: FromEngine) => self.postMessage(message);
  try {
    const opened = await openEngine(options, { constraints: grammarConstraints(received) });
    const counter = new Int32Array(beat);
    const show = () => void Atomics.add(counter, 0, 1);
    const timer = setInterval(show, BEAT_MS);
    host = new EngineHost({ engine: opened.engine, post, openPool: opened.openPool, beat: show });
    post({ kind: "ready", info: opened.engine.info });
    try {
      await host.run();
    } finally {
      // Also after a crash: the next engine needs the memory.
      clearInterval(timer);
      opened.close();
    }
    post({ kind: "closed" });
  } catch (error) {
    post({ kind: "error", id: null, error: toWire(error) });
  }
}

/** Preparing it here would hold every stream up. */
function received(): VocabularyData {
  if (vocabulary === null) throw new Error("The engine has no vocabulary for constraints");
  return vocabulary;
}
