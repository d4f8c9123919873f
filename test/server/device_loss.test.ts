// What clients and probes see when the device is lost, over HTTP with a small model in the emulator, and what ends with it.
import { afterEach, expect, test } from "bun:test";
import { untilStopped } from "../../src/cli/serve.ts";
import { startEngine } from "../../src/engine/client.ts";
import { RestartingEngine } from "../../src/engine/restarting_engine.ts";
import type { RunningServer } from "../../src/server/start.ts";
import { tinyLlama, withTemporary, writeCheckpoint } from "../support/checkpoints.ts";
import { emulator, heal, loseAfter } from "../support/emulator.ts";
import { type ErrorJson, json, testServer } from "./support.ts";

afterEach(heal);

test("a lost device: streams end with an error event, health says why, and a server that should ends", () =>
  withTemporary(async (folder) => {
    const options = {
      ...emulator,
      modelDir: writeCheckpoint(folder, tinyLlama),
      kvBytes: 1 << 16,
      stateBytes: 1 << 16,
    };
    const realEngine = await RestartingEngine.start(() => startEngine(options), { log: () => {} });
    const server = await testServer({ realEngine });
    try {
      const ask = (body: object) => server.send("POST", "/v1/completions", { ignore_eos: true, ...body });
      const stopped: string[] = [];
      const running = { context: server.context, stop: async () => void stopped.push("stopped") };
      const ended = untilStopped(running as unknown as RunningServer, 1000, () => {}, true);
      const stream = await ask({ prompt: [3, 4], max_tokens: 60, stream: true });
      loseAfter(40);
      const events = await stream.text();
      expect(events).toContain('"code":"engine_dead"');
      expect(events).toContain("The device was lost; the server has to be started again");
      expect(events).toEndWith("data: [DONE]\n\n");
      const health = await server.get("/health");
      expect(health.status).toBe(503);
      expect(await json<object>(health)).toMatchObject({
        status: "engine_dead",
        reason: expect.stringMatching(/^The device is lost: .*unspecified launch failure/),
      });
      expect((await server.get("/ready")).status).toBe(503);
      const refused = await ask({ prompt: [3], max_tokens: 1 });
      expect([refused.status, (await json<ErrorJson>(refused)).error.code]).toEqual([503, "engine_dead"]);
      expect(await ended).toBe("dead");
      expect(stopped).toEqual(["stopped"]);
    } finally {
      await server.dispose();
    }
  }));
