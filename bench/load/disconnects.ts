// Clients that leave at random bytes, of their request or of the answer, while healthy ones are served: afterwards no page,
// slot, sequence or descriptor is held, and no healthy answer has changed.
//   bun bench/load/disconnects.ts [COUNT=10000] [SEED=1]
import { CounterRandom } from "../../src/tensor/random.ts";
import { cutRequest, postBytes } from "./cut_request.ts";
import { complete, type Held, heldAfter, heldBy, type LoadServer, startLoadServer } from "./load_server.ts";

/** What cutting has shown. */
export interface DisconnectReport {
  readonly cuts: number;
  /** Of those, how many left while they sent their request. */
  readonly cutSending: number;
  /** Healthy requests beside them, and how many of their answers were not the usual one. */
  readonly healthy: number;
  readonly changed: number;
  readonly before: Held;
  readonly after: Held;
  readonly seconds: number;
}

const CONCURRENCY = 24;
const PROMPT_TOKENS = [5, 40, 700];

/** Cuts `count` requests. */
export async function runDisconnects(server: LoadServer, count: number, seed = 1): Promise<DisconnectReport> {
  const kinds = requestKinds(server).map(([path, body]) => postBytes(server.url, path, body));
  const sizes = await Promise.all(requestKinds(server).map(([path, body]) => answerSize(server, path, body)));
  const witness = () => complete(server, `${server.backbone}:gdn-half`, [3, 1, 4, 1, 5], 24);
  const usual = (await witness()).join();
  const before = await heldBy(server);
  const started = performance.now();
  let [next, cutSending, healthy, changed] = [0, 0, 0, 0];
  const random = new CounterRandom(seed);
  const leaver = async () => {
    for (let i = next++; i < count; i = next++) {
      const kind = Math.floor(random.uniform(4 * i) * kinds.length);
      const [bytes, size] = [kinds[kind]!, sizes[kind]!];
      const sending = random.uniform(4 * i + 1) < 0.25;
      const sendBytes = sending ? Math.floor(random.uniform(4 * i + 2) * bytes.length) : bytes.length;
      const receiveBytes = sending ? 0 : Math.floor(random.uniform(4 * i + 2) * size);
      await cutRequest(server.url, bytes, { sendBytes, receiveBytes, reset: random.uniform(4 * i + 3) < 0.5 });
      if (sending) cutSending++;
    }
  };
  const stayer = async () => {
    do {
      healthy++;
      if ((await witness()).join() !== usual) changed++;
    } while (next < count);
  };
  await Promise.all([...Array.from({ length: CONCURRENCY }, leaver), stayer()]);
  const after = await heldAfter(server, before);
  const seconds = (performance.now() - started) / 1000;
  return { cuts: count, cutSending, healthy, changed, before, after, seconds };
}

/** Streams, whole answers with several choices, and scores, over hybrids and lengths. */
function requestKinds({ backbone, vocabSize }: LoadServer): [path: string, body: object][] {
  const ids = (count: number, from: number) => Array.from({ length: count }, (_, i) => (from + 7 * i) % vocabSize);
  return PROMPT_TOKENS.flatMap((length, i) =>
    [backbone, `${backbone}:gdn-half`, `${backbone}:gdn-all`].flatMap((model, j) => {
      const common = { model, prompt: ids(length, 100 * i + j), max_tokens: 40, ignore_eos: true, seed: 1 };
      const scored = { model, context: ids(length, j), continuations: [ids(9, i), ids(5, j)] };
      return [
        ["/v1/completions", { ...common, stream: true }],
        ["/v1/completions", { ...common, n: 3 }],
        ["/v1/score", scored],
      ] as [string, object][];
    }),
  );
}

/** Bytes of an answer; a little less than the whole, whose headers differ by the connection's. */
async function answerSize(server: LoadServer, path: string, body: object): Promise<number> {
  const bytes = postBytes(server.url, path, body, true);
  return (
    0.98 * (await cutRequest(server.url, bytes, { sendBytes: bytes.length, receiveBytes: Infinity, reset: false }))
  );
}

if (import.meta.main) {
  const [count = "10000", seed = "1"] = process.argv.slice(2);
  const server = await startLoadServer();
  try {
    const report = await runDisconnects(server, Number(count), Number(seed));
    console.log(JSON.stringify(report, null, 2));
    const leaked = Object.entries(report.after).some(([key, value]) => value > report.before[key as keyof Held]);
    process.exitCode = leaked || report.changed > 0 ? 1 : 0;
  } finally {
    await server.stop();
  }
}
