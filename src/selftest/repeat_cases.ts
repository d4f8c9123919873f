// Self-test cases of steps that repeat: what is recorded goes on as if it were called, and numbers move on by themselves.
import { Fetch, SAMPLING_WORDS } from "../ops/repeat_ops.ts";
import { LIMITS, range, type SelftestCase } from "./case.ts";

/** Steps that are called, as on first use, and all of them. */
const CALLED = 2;
const STEPS = 7;

const steps: SelftestCase = {
  name: `record, replay, advance, download_begin: ${STEPS} steps of 3 rows`,
  limit: LIMITS.exact,
  run(b) {
    const { ops } = b;
    const [N, V] = [3, 50];
    // Each id is followed by one that is far more likely than the others, but for a little chance.
    const table = b.words(
      [V, V],
      Float32Array.from(range(V * V), (i) => (i % V === (7 * Math.floor(i / V) + 3) % V ? 6 : (i % 5) / 4)),
    );
    const logits = b.output("logits", [N, V]);
    const drawn = b.output("drawn", [N], "i32");
    const ids = b.output("ids", [N], "i32");
    const positions = b.output("positions", [N + 2], "i32");
    ops.upload(ids, Int32Array.of(1, 2, 3));
    ops.upload(positions, Int32Array.of(5, 6, 7, 7, 5));
    const params = b.words([N * SAMPLING_WORDS], records([0, 1, 1.5]));
    const step = () => {
      ops.embedding(logits, ids, table);
      ops.sample(drawn, null, logits, params);
      ops.advance({ ids, positions, params }, drawn);
    };
    const fetches = [new Fetch(ops, N, 0), new Fetch(ops, N, 1)];
    const history: number[] = [];
    const read = (i: number) => history.push(...fetches[i % 2]!.wait().subarray(0, N));
    let recording = null;
    for (let i = 0; i < STEPS; i++) {
      if (i === CALLED) recording = ops.record(step);
      if (recording === null) step();
      else ops.replay(recording);
      fetches[i % 2]!.begin(drawn);
      // A step behind, as when the next is begun before this one is read.
      if (i > 0) read(i - 1);
    }
    read(STEPS - 1);
    ops.upload(b.output("history", [STEPS * N], "i32"), Int32Array.from(history));
    for (const fetch of fetches) fetch.close();
    if (recording !== null) ops.freeRecording(recording);
  },
};

/** graft_sampling records with these temperatures. */
function records(temperatures: readonly number[]): Float32Array {
  const floats = new Float32Array(temperatures.length * SAMPLING_WORDS);
  const words = new Uint32Array(floats.buffer);
  temperatures.forEach((temperature, i) => {
    floats.set([temperature, 1, 0], i * SAMPLING_WORDS);
    words.set([0, 9, 0, i, 6 + i], i * SAMPLING_WORDS + 3);
  });
  return floats;
}

const put: SelftestCase = {
  name: "put, 40 of 300 places",
  limit: LIMITS.exact,
  run(b) {
    const table = b.output("table", [300], "i32");
    b.ops.upload(
      table,
      Int32Array.from(range(300), (i) => -i),
    );
    const pairs = range(40).flatMap((i) => [(i * 37) % 300, 1000 + i]);
    b.ops.put(table, { ...b.ints(pairs), shape: [40, 2] });
  },
};

export const repeatCases: readonly SelftestCase[] = [steps, put];
