// States at the ends of messages: a conversation whose last answer is written differently the next time resumes at the last
// message that is the same, under the templates and the tokenizer of real models.
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { RequestError } from "../../src/errors.ts";
import { type ChatMessage, ChatTemplate } from "../../src/text/chat_template.ts";
import { messageEnds } from "../../src/text/message_ends.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { expectedToken, TOY_VOCAB, type Toy, type ToyLimits, toyEngine } from "./toy_backend.ts";

const limits: ToyLimits = {
  pageSize: 16,
  numPages: 400,
  numStateFloats: 40_000,
  maxBatchTokens: 512,
  maxSequences: 8,
  maxWaiting: 16,
  maxContext: 4096,
  pageBytes: 32,
  cacheBytes: 10_000_000,
  snapshotTokens: 2048,
};
const MIXED = ["full_attention", "gdn"] as const;
const bundled = join(import.meta.dir, "../../models/tiny");
const tokenizer = Tokenizer.load(bundled)!;

/** As Qwen3's: what an assistant thought is left out of all turns but the one being written. */
const THINKING =
  "{%- for message in messages %}" +
  "{%- set content = message.content %}" +
  "{%- if message.role == 'assistant' %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}" +
  "{{- '<|' + message.role + '|>' + content + '<|end|>' }}" +
  "{%- endfor %}" +
  "{%- if add_generation_prompt %}{{- '<|assistant|><think>\\n' }}{%- endif %}";

const system = {
  role: "system",
  content: "You are a helpful gardener who knows all the flowers and trees by name. ".repeat(4),
};
const user = (text: string) => ({
  role: "user",
  content: `${text} Please tell me more about the big tree in the park. `,
});

/** The prompt's ids in the toy's vocabulary, and where its messages end. */
function encode(template: ChatTemplate, messages: readonly ChatMessage[]) {
  const ids = tokenizer.encode(template.render(messages), "never");
  const boundaries = messageEnds(ids, [tokenizer.eosId!], tokenizer);
  return { promptIds: ids.map((id) => id % TOY_VOCAB), boundaries };
}

/** Generates, checks every token, and answers how many prompt tokens were cached. */
function cached({ engine, registry }: Toy, request: { promptIds: number[]; boundaries?: readonly number[] }): number {
  const [result] = engine.generate([{ ...request, maxTokens: 3 }]);
  const history = [...request.promptIds];
  for (const token of result!.tokenIds) {
    expect(token).toBe(expectedToken(registry.get("base"), history, 0, 0));
    history.push(token);
  }
  return result!.usage.cachedTokens;
}

function commonTokens(a: readonly number[], b: readonly number[]): number {
  const end = a.findIndex((id, i) => id !== b[i]);
  return end < 0 ? a.length : end;
}

describe("message boundaries", () => {
  for (const [name, template] of [
    ["a template that drops what was thought", new ChatTemplate({ default: THINKING })],
    ["the bundled model's template", ChatTemplate.load(bundled)],
  ] as const) {
    test(`${name}: the next turn resumes at the end of the last user message`, () => {
      const toy = toyEngine(MIXED, limits);
      const first = encode(template, [system, user("Hello.")]);
      expect(cached(toy, first)).toBe(0);
      const answer = { role: "assistant", content: "<think>\nThey want a tree.</think>\n\nIt is an old oak tree. " };
      const second = encode(template, [system, user("Hello."), answer, user("And now?")]);
      const common = commonTokens(first.promptIds, second.promptIds);
      const boundary = first.boundaries.findLast((at) => at <= common)!;
      expect(boundary).toBeGreaterThan(60);
      expect(cached(toy, second)).toBe(Math.max(boundary, common === first.promptIds.length ? common - 1 : 0));
    });

    test(`${name}: another conversation under the same system prompt resumes at its end`, () => {
      const toy = toyEngine(MIXED, limits);
      cached(toy, encode(template, [system, user("Hello.")]));
      const other = encode(template, [system, user("Good morning.")]);
      expect(cached(toy, other)).toBe(other.boundaries[0]!);
    });
  }

  test("without boundaries the same turn begins anew, and the reason is counted", () => {
    const toy = toyEngine(MIXED, limits);
    const template = new ChatTemplate({ default: THINKING });
    const prompt = (text: string) => ({ promptIds: encode(template, [system, user(text)]).promptIds });
    cached(toy, prompt("Hello."));
    expect(cached(toy, prompt("Good morning."))).toBe(0);
    expect(toy.engine.stats().prefixOutcomes).toMatchObject({ cold: 1, no_state: 1 });
  });

  test("of many messages the first and the last few are kept, and none that are close together", () => {
    const toy = toyEngine(MIXED, limits);
    const promptIds = Array.from({ length: 1000 }, (_, i) => (i * i) % TOY_VOCAB);
    const boundaries = Array.from({ length: 100 }, (_, i) => 10 * (i + 1));
    cached(toy, { promptIds, boundaries });
    // 20, 40, ... 980 are far enough apart, and so is the end of the prompt; the whole text is kept as it ends.
    expect(toy.engine.stats().prefixSnapshots).toBe(4 + 1 + 1);
    const at = (length: number) => cached(toy, { promptIds: [...promptIds.slice(0, length), 1, 2, 3] });
    expect([at(990), at(970), at(950), at(930)]).toEqual([980, 960, 940, 20]);
  });

  test("a prompt with the same system prompt waits for it to be computed, and for no more", () => {
    const toy = toyEngine(MIXED, { ...limits, maxBatchTokens: 64 });
    const promptIds = (salt: number) => [...Array(64).keys(), ...Array(128).fill(salt)];
    for (let salt = 1; salt <= 3; salt++) {
      toy.engine.add({ promptIds: promptIds(salt), maxTokens: 1, boundaries: [64, 192] });
    }
    let rows = 0;
    while (toy.engine.hasWork) rows += toy.engine.step().numPrefillTokens;
    expect(rows).toBe(64 + 3 * 128);
    expect(toy.engine.stats().prefixOutcomes).toMatchObject({ hit: 2, cold: 1 });
  });

  test("a better priority does not wait for a worse one's prefix", () => {
    const toy = toyEngine(MIXED, { ...limits, maxBatchTokens: 32 });
    const promptIds = [...Array(96).keys()];
    toy.engine.add({ promptIds, maxTokens: 1, priority: 1 });
    toy.engine.step();
    const urgent = toy.engine.add({ promptIds, maxTokens: 1, priority: 0 });
    const ended: number[] = [];
    while (toy.engine.hasWork) ended.push(...toy.engine.step().events.map(({ id }) => id));
    expect(ended[0]).toBe(urgent);
  });

  test("followers of one that is cancelled or preempted go on by themselves, and can be cancelled as well", () => {
    const toy = toyEngine(MIXED, { ...limits, maxBatchTokens: 16 });
    const promptIds = [...Array(96).keys()];
    const ids = [1, 2, 3].map(() => toy.engine.add({ promptIds, maxTokens: 2 }));
    toy.engine.step();
    expect([toy.scheduler.numRunning, toy.scheduler.numWaiting]).toEqual([1, 2]);
    toy.engine.cancel(ids[2]!);
    toy.engine.cancel(ids[0]!);
    expect([toy.scheduler.numRunning, toy.scheduler.numWaiting]).toEqual([0, 1]);
    const ended: number[] = [];
    while (toy.engine.hasWork) {
      for (const { id, event } of toy.engine.step().events) if (event.finishReason !== null) ended.push(id);
    }
    expect(ended).toEqual([ids[1]!]);
  });

  for (const boundaries of [[0], [1.5], [-1], [4], ["1" as never]]) {
    test(`boundaries ${JSON.stringify(boundaries)} of a prompt of 3 tokens are refused`, () => {
      const { engine } = toyEngine(MIXED, limits);
      expect(() => engine.add({ promptIds: [1, 2, 3], maxTokens: 1, boundaries })).toThrow(RequestError);
    });
  }
});

describe("messageEnds", () => {
  test("behind the ids that end a turn, else behind special ids, else nowhere", () => {
    const special = { specialIds: new Set([1, 2]) };
    expect(messageEnds([1, 5, 9, 1, 6, 9], [9], special)).toEqual([3, 6]);
    expect(messageEnds([1, 5, 2, 6], [9], special)).toEqual([1, 3]);
    expect(messageEnds([5, 6], [9], special)).toEqual([]);
    expect(messageEnds([1, 5], [9], null)).toEqual([]);
  });
});
