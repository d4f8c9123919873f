// What scheduling costs, without any model: with hundreds running and ten thousand waiting it stays far below a step's work,
// and does not grow with those that wait.
import { expect, test } from "bun:test";
import type { Chunk } from "../../src/engine/batch.ts";
import { toyEngine } from "./toy_backend.ts";

/** Microseconds of schedule() and advance() per step, the median of some. */
function cost(running: number, waiting: number): { step: number; admit: number } {
  const { engine, scheduler, backend } = toyEngine(["full_attention", "gdn"], {
    pageSize: 16,
    numPages: 40_000,
    numStateFloats: 1_000_000,
    maxBatchTokens: 2048,
    maxSequences: running,
    maxWaiting: 20_000,
    maxContext: 4096,
    pageBytes: 64,
    cacheBytes: 2 ** 30,
    snapshotTokens: 512,
    prefillInterference: 0,
  });
  const drawn = ({ numOutputs }: Chunk) => (numOutputs === 0 ? null : { id: 1, logprob: 0, top: [] });
  backend.run = (batch) => batch.chunks.map(drawn);
  const system = Array.from({ length: 100 }, (_, i) => i % 97);
  const add = (i: number, priority: number) => {
    engine.add({ promptIds: [...system, i % 97, (i >> 7) % 97, 5, 6], maxTokens: 2000, priority, boundaries: [100] });
  };
  for (let i = 0; i < running; i++) add(i, 0);
  while (scheduler.numRunning < running || scheduler.sequences.some((s) => s.tokens.length === s.numPrompt))
    engine.step();
  const admitted = performance.now();
  for (let i = 0; i < waiting; i++) add(i, i % 3);
  const admit = (1000 * (performance.now() - admitted)) / Math.max(1, waiting);
  const times = Array.from({ length: 200 }, () => {
    const started = performance.now();
    const { batch } = scheduler.schedule();
    scheduler.advance(batch);
    const took = performance.now() - started;
    for (const { sequence } of batch.chunks) if (sequence.numPending === 0) sequence.append(1);
    return 1000 * took;
  });
  engine.close();
  return { step: times.sort((a, b) => a - b)[100]!, admit };
}

test("a step of 32, 256 and 1024 running sequences, with nobody and with ten thousand waiting", () => {
  cost(32, 1000);
  const lines: string[] = [];
  for (const running of [32, 256, 1024]) {
    const [idle, full] = [cost(running, 0), cost(running, 10_000)];
    lines.push(`${running} running: ${idle.step.toFixed(0)} us, with 10000 waiting ${full.step.toFixed(0)} us`);
    // Generous for a loaded machine; a scan of all pairs would take a hundred times as long.
    expect(full.step).toBeLessThan(20 * running + 2000);
    expect(full.admit).toBeLessThan(500);
  }
  console.error(`schedule() and advance() per step: ${lines.join("; ")}`);
}, 60_000);
