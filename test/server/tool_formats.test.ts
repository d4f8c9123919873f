// Each form of calls that a template may teach, with a real model under that template: what the grammar lets it write is
// read back as calls.
import { afterAll, expect, test } from "bun:test";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import OpenAI from "openai";
import { ServeSandbox } from "./serve_process.ts";

const bundled = resolve(import.meta.dir, "../../models/tiny");
const sandboxes: ServeSandbox[] = [];
afterAll(() => Promise.all(sandboxes.map((sandbox) => sandbox.dispose())));

const turn = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>";
const templates = {
  // As Qwen and Hermes have it.
  hermes: `{{ bos_token }}{% if tools %}<|system|>{{ tools | tojson }} <tool_call>{% endif %}${turn}`,
  // As Llama 3 has it.
  llama3: `{{ bos_token }}{# ipython #}{% if tools %}<|system|>{"name": f, "parameters": a} {{ tools | tojson }}{% endif %}${turn}`,
};
const parameters = {
  type: "object",
  properties: { a: { enum: [1, 2] } },
  required: ["a"],
  additionalProperties: false,
};
const tools: OpenAI.ChatCompletionTool[] = ["f", "g"].map((name) => ({
  type: "function",
  function: { name, parameters },
}));

for (const [name, chat_template] of Object.entries(templates)) {
  test(`${name}: required calls are made, alone and several, streamed as whole`, async () => {
    const sandbox = new ServeSandbox();
    sandboxes.push(sandbox);
    const model = join(sandbox.root, name);
    cpSync(bundled, model, { recursive: true });
    const config = join(model, "tokenizer_config.json");
    writeFileSync(config, JSON.stringify({ ...(JSON.parse(readFileSync(config, "utf8")) as object), chat_template }));
    const { url } = await sandbox.serve(model);
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    for (const parallel_tool_calls of [false, true]) {
      const body = {
        model: name,
        messages: [{ role: "user" as const, content: "hello" }],
        tools,
        tool_choice: "required" as const,
        parallel_tool_calls,
        seed: 4,
        max_completion_tokens: 150,
      };
      const { choices } = await client.chat.completions.create(body);
      const calls = choices[0]!.message.tool_calls!.flatMap((call) =>
        call.type === "function" ? [call.function] : [],
      );
      expect(calls.length).toBeGreaterThan(0);
      // The last of several may have been cut by the limit.
      const whole = choices[0]!.finish_reason === "length" ? calls.slice(0, -1) : calls;
      for (const call of whole) {
        expect(["f", "g"]).toContain(call.name);
        expect([1, 2]).toContain((JSON.parse(call.arguments) as { a: number }).a);
      }
      if (!parallel_tool_calls) expect([calls.length, choices[0]!.finish_reason]).toEqual([1, "tool_calls"]);
      expect(choices[0]!.message.content).toBe(null);
      const parts = new Map<number, string>();
      for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
        for (const { index, function: part } of chunk.choices[0]?.delta.tool_calls ?? []) {
          parts.set(index, (parts.get(index) ?? "") + (part?.arguments ?? ""));
        }
      }
      expect([...parts.values()]).toEqual(calls.map((call) => call.arguments));
    }
  }, 60_000);
}
