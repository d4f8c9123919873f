// A model whose head overflows for some texts: those fail, the texts beside them come out as ever, and the engine goes on.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEngine } from "../../src/engine/client.ts";
import type { EngineClient, GenerateRequest } from "../../src/engine/types.ts";
import { KernelError } from "../../src/errors.ts";
import { randomTensors, tinyLlama, writeCheckpoint } from "../support/checkpoints.ts";

const PROMPTS = Array.from({ length: 24 }, (_, i) => [3, (i * 5) % 24, i]);

describe("broken logits", () => {
  const directory = mkdtempSync(join(tmpdir(), "graft-test-"));
  let client: EngineClient;

  beforeAll(async () => {
    const tensors = randomTensors(tinyLlama).map((tensor) => {
      if (tensor.name !== "lm_head.weight") return tensor;
      const values = new Float32Array(tensor.bytes().slice().buffer);
      values.fill(0, 0, tensor.shape[1]!);
      values[3] = 3.4e38; // logit 0 is channel 3 times this: infinite for some texts, far above or below all others for the rest
      return { ...tensor, bytes: () => new Uint8Array(values.buffer) };
    });
    writeCheckpoint(directory, tinyLlama, tensors);
    client = await startEngine({ modelDir: directory, threads: 1, stateBytes: 1 << 20, maxSequences: 8 });
  });
  afterAll(async () => {
    await client.close();
    rmSync(directory, { recursive: true, force: true });
  });

  /** The tokens of a text, or the error that it ended with. */
  async function outcome(request: GenerateRequest): Promise<number[] | Error> {
    const tokens: number[] = [];
    try {
      for await (const event of client.generate(request)) tokens.push(...event.tokenIds);
    } catch (error) {
      return error as Error;
    }
    return tokens;
  }

  test.each([
    ["greedy", { temperature: 0 }],
    ["with all cuts", { temperature: 1, topK: 9, topP: 0.9, minP: 0.01 }],
  ])("%s: some texts fail, each with a KernelError, the others are what they are alone", async (_, sampling) => {
    const requests = PROMPTS.map((promptIds) => ({ promptIds, maxTokens: 2, sampling }));
    const alone: (number[] | Error)[] = [];
    for (const request of requests) alone.push(await outcome(request));
    expect(await Promise.all(requests.map(outcome))).toEqual(alone);
    const errors = alone.filter((result) => result instanceof Error);
    expect(errors.length).toBeGreaterThan(0);
    expect(errors.length).toBeLessThan(PROMPTS.length);
    for (const error of errors) {
      expect(error).toBeInstanceOf(KernelError);
      expect(error.message).toBe("Cannot draw a token: the model's logits hold NaN or infinity");
    }
    const { running, waiting, kvBytesUsed } = await client.stats();
    expect([client.alive, running, waiting, kvBytesUsed]).toEqual([true, 0, 0, 0]);
  });

  test("a scoring that meets them fails as a whole, the next one is scored", async () => {
    const broken: number[][] = [];
    for (const promptIds of PROMPTS) {
      if ((await outcome({ promptIds, maxTokens: 1 })) instanceof Error) broken.push(promptIds);
    }
    const good = PROMPTS.find((prompt) => !broken.includes(prompt))!;
    const scores = (contextIds: number[]) => client.score([{ contextIds, continuationIds: [1] }]);
    const failure = await scores(broken[0]!).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(KernelError);
    const [score] = await scores(good);
    expect(score!.logprobs.length).toBe(1);
  });
});
