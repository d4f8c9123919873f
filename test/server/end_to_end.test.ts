// A real server with a real model over a real port: the official client, a conversion and a search to a served hybrid,
// cancel by leaving, kill -9 and resume, refusals at the start, and the drain.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import OpenAI, { BadRequestError, NotFoundError } from "openai";
import { Store } from "../../src/store/database.ts";
import { dataDir, skipReason } from "../text/support.ts";
import { type ServeProcess, ServeSandbox } from "./serve_process.ts";

/** For tests that convert and search. */
const LONG_MS = 120_000;

import { json } from "./support.ts";

const model = resolve(dataDir, "tiny1m");
const texts = resolve(dataDir, "text", "tinystories_1000.json");
const taskFile = resolve(dataDir, "tasks", "story_cloze_256", "search.jsonl");

interface JobJson {
  id: string;
  status: string;
  error: string | null;
  trajectory: { round: number; candidates: unknown[] }[];
}

interface Stats {
  engine: { running: number; waiting: number; kvBytesUsed: number };
}

describe.skipIf(skipReason(model))("graft serve tiny1m", () => {
  const sandbox = new ServeSandbox();
  let server: ServeProcess;
  let client: OpenAI;
  const connect = (process: ServeProcess) => {
    server = process;
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  };
  const post = (path: string, body: unknown) =>
    fetch(server.url + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const stats = async () => json<Stats>(await fetch(`${server.url}/v1/stats`));
  /** Reads a job's event stream to its end. */
  const events = async (path: string) => (await fetch(server.url + path)).text();

  beforeAll(async () => {
    connect(await sandbox.serve(model));
  }, LONG_MS);
  afterAll(() => sandbox.dispose());

  const greedy = { model: "tiny1m", prompt: "Once upon a time", max_tokens: 24, temperature: 0 };
  const beginning = ", there was a little girl named Lily. She loved to play outside";

  test("the start line tells names, threads and memory", () => {
    expect(server).toMatchObject({ model: "tiny1m", names: ["tiny1m", "tiny1m:base"], threads: 1 });
    expect(server.weight_bytes).toBeGreaterThan(3_000_000);
  });

  test("the openai client lists models, completes and chats", async () => {
    const models = await Array.fromAsync(await client.models.list());
    expect(models.map((one) => one.id)).toEqual(["tiny1m", "tiny1m:base"]);
    const completion = await client.completions.create(greedy);
    expect(completion.choices[0]?.text).toStartWith(beginning.slice(0, 40));
    expect(completion.choices[0]?.finish_reason).toBe("length");
    expect(completion.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 24 });
    const chat = await client.chat.completions.create({
      model: "tiny1m",
      messages: [{ role: "user", content: "Tell me a story" }],
      max_completion_tokens: 8,
      seed: 7,
    });
    expect(chat.choices[0]?.message.role).toBe("assistant");
    expect(chat.usage?.completion_tokens).toBeLessThanOrEqual(8);
  });

  test("a stream says the same as a whole answer, and equal seeds the same as each other", async () => {
    const whole = await client.completions.create(greedy);
    let streamed = "";
    for await (const chunk of await client.completions.create({ ...greedy, stream: true })) {
      streamed += chunk.choices[0]?.text ?? "";
    }
    expect(streamed).toBe(whole.choices[0]!.text);
    const sample = () => client.completions.create({ ...greedy, temperature: 1, seed: 11, n: 2 });
    const [first, second] = [await sample(), await sample()];
    expect(first.choices.map((choice) => choice.text)).toEqual(second.choices.map((choice) => choice.text));
    expect(first.choices[0]!.text).not.toBe(first.choices[1]!.text);
  });

  test("logprobs of greedy tokens are the largest", async () => {
    const { choices } = await client.chat.completions.create({
      model: "tiny1m",
      messages: [{ role: "user", content: "x" }],
      max_tokens: 4,
      temperature: 0,
      logprobs: true,
      top_logprobs: 3,
    });
    for (const token of choices[0]!.logprobs!.content!) {
      expect(token.logprob).toBeLessThanOrEqual(0);
      expect(token.top_logprobs[0]!.logprob).toBe(token.logprob);
      expect(token.top_logprobs).toHaveLength(3);
    }
  });

  test("the client turns our errors into its classes", async () => {
    const failure = async (body: object) => {
      const answer = client.completions.create({ ...greedy, ...body });
      return answer.then(
        () => null,
        (error: unknown) => error,
      );
    };
    expect(await failure({ model: "nope" })).toBeInstanceOf(NotFoundError);
    const bad = await failure({ temperature: 9 });
    expect(bad).toBeInstanceOf(BadRequestError);
    expect(bad).toMatchObject({ param: "temperature", code: "invalid_value" });
  });

  test("many requests at once all end, each with its own text", async () => {
    const prompts = Array.from({ length: 24 }, (_, i) => `Tom had ${i} red`);
    const alone = await client.completions.create({ ...greedy, prompt: prompts[3]!, max_tokens: 12 });
    const all = await Promise.all(
      prompts.map((prompt) => client.completions.create({ ...greedy, prompt, max_tokens: 12 })),
    );
    expect(all[3]!.choices[0]!.text).toBe(alone.choices[0]!.text);
    expect(all.every((one) => one.usage!.completion_tokens > 0)).toBe(true);
  });

  test("a client that leaves frees its sequence", async () => {
    for (let i = 0; i < 5; i++) {
      const stream = await client.completions.create({ ...greedy, max_tokens: 240, stream: true, temperature: 1 });
      for await (const chunk of stream) {
        expect(chunk.choices[0]?.finish_reason ?? null).toBeNull();
        break;
      }
    }
    let now = await stats();
    for (let i = 0; i < 100 && now.engine.running > 0; i++) now = await stats();
    expect(now.engine).toMatchObject({ running: 0, waiting: 0, kvBytesUsed: 0 });
  });

  test(
    "a second server on the data folder and a taken port are refused in one line",
    async () => {
      await expect(sandbox.serve(model)).rejects.toThrow(
        /ended with 1: error: Cannot serve from ".*": another server uses it.*\n$/,
      );
      const other = new ServeSandbox();
      const port = new URL(server.url).port;
      try {
        await expect(other.serve(model, ["--port", port])).rejects.toThrow("given more than once");
        const child = other.spawn(["serve", model, "--port", port]);
        expect(await child.exited).toBe(1);
        expect(await child.stderr.text()).toBe(
          `error: Cannot listen on 127.0.0.1:${port}: the port is in use; choose another with --port\n`,
        );
      } finally {
        await other.dispose();
      }
    },
    LONG_MS,
  );

  test("another host's name is refused", async () => {
    const response = await fetch(`${server.url}/v1/models`, { headers: { host: "evil.example" } });
    expect(response.status).toBe(403);
  });

  test(
    "a conversion, then a search, then its hybrid is served, all without a restart",
    async () => {
      const conversion = await post("/v1/conversions", { variant: "gla", data: [`${texts}[100:140]`], tokens: 16_384 });
      expect(conversion.status).toBe(202);
      const { id } = await json<JobJson>(conversion);
      const log = await events(`/v1/conversions/${id}/events`);
      expect(log).toContain('"status":"done"');

      const documents = readFileSync(taskFile, "utf8")
        .split("\n", 6)
        .map((line) => JSON.parse(line) as unknown);
      const request = { task: "cloze", documents, variant: "gla", replace: 2 };
      const search = await json<JobJson>(await post("/v1/searches", request));
      const story = await events(`/v1/searches/${search.id}/events`);
      expect(story).toContain('"status":"done"');
      const found = await json<JobJson>(await fetch(`${server.url}/v1/searches/${search.id}`));
      expect(found.trajectory.filter((round) => round.round > 0).map((round) => round.candidates.length)).toEqual([
        4, 3,
      ]);

      const hybrid = { ...greedy, model: "tiny1m:cloze" };
      for (let i = 0; i < 100; i++) {
        if ((await fetch(`${server.url}/v1/models/tiny1m:cloze`)).ok) break;
      }
      const first = await client.completions.create(hybrid);
      expect(first.choices[0]!.text.length).toBeGreaterThan(0);
      // The backbone itself still says what it said.
      expect((await client.completions.create(greedy)).choices[0]!.text).toStartWith(beginning.slice(0, 40));
      const listed = await json<{ data: { name: string; num_linear: number }[] }>(
        await fetch(`${server.url}/v1/hybrids`),
      );
      expect(listed.data.find((one) => one.name === "cloze")?.num_linear).toBe(2);
    },
    LONG_MS,
  );

  test(
    "after kill -9 of the server a search goes on and scores nothing twice",
    async () => {
      const posted = await post("/v1/searches", { task: "cloze", variant: "gla", all: true });
      const { id } = await json<JobJson>(posted);
      const store = Store.open(sandbox.root);
      try {
        while (store.candidates.list(id).length === 0 && store.jobs.get(id)!.state !== "done") await Bun.sleep(5);
        server.signal("SIGKILL");
        await server.exited;
        // The worker dies too: nobody is left.
        const { pid } = store.jobs.get(id)!;
        if (pid !== null) process.kill(pid, "SIGKILL");
        connect(await sandbox.serve("tiny1m"));
        const story = await events(`/v1/searches/${id}/events`);
        expect(story).toContain('"status":"done"');
        const scored = store.candidates.list(id).filter((one) => one.round > 0);
        expect(scored).toHaveLength(4 + 3 + 2 + 1);
        expect(store.jobs.get(id)).toMatchObject({ state: "done" });
      } finally {
        store.close();
      }
    },
    LONG_MS,
  );

  test(
    "SIGTERM: not ready at once, the stream ends whole, exit 0, no address left",
    async () => {
      const stream = await client.completions.create({
        ...greedy,
        model: "tiny1m:cloze",
        max_tokens: 240,
        stream: true,
      });
      let text = "";
      let last: string | null = null;
      for await (const chunk of stream) {
        if (text === "") {
          server.signal("SIGTERM");
        }
        text += chunk.choices[0]?.text ?? "";
        last = chunk.choices[0]?.finish_reason ?? last;
      }
      expect(["stop", "length"]).toContain(last!);
      expect(await server.exited).toBe(0);
      expect(server.errors()).toContain("stopping: 1 requests under way");
      expect(await Bun.file(join(sandbox.root, "server.json")).exists()).toBe(false);
      await expect(fetch(`${server.url}/ready`)).rejects.toThrow();
    },
    LONG_MS,
  );

  test(
    "beyond the drain's limit a stream ends with cancelled, still with exit 0",
    async () => {
      connect(
        await sandbox.serve("tiny1m:cloze", ["--drain-seconds", "0", "--isa", "reference", "--alias", "short=cloze"]),
      );
      const models = await Array.fromAsync(await client.models.list());
      expect(models.map((one) => one.id)).toContain("short");
      const request = { ...greedy, max_tokens: 250, stream: true as const, ignore_eos: true };
      const stream = await client.completions.create(request);
      let last: string | null = null;
      let chunks = 0;
      for await (const chunk of stream) {
        if (chunks++ === 0) server.signal("SIGTERM");
        last = chunk.choices[0]?.finish_reason ?? last;
      }
      expect(last as string | null).toBe("cancelled");
      expect(await server.exited).toBe(0);
    },
    LONG_MS,
  );
});
