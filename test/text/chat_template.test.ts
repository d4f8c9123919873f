import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CheckpointError, RequestError } from "../../src/errors.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { loadGenerationConfig } from "../../src/text/generation_config.ts";

const messages = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hi" },
];

function inDirectory<T>(files: Record<string, string>, body: (directory: string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), "graft-text-"));
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
    return body(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

describe("ChatTemplate", () => {
  test("renders a ChatML template with whitespace control, conditions and a default system message", () => {
    const chatMl =
      "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nHelp.<|im_end|>\n' }}{%- endif %}\n" +
      "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>' + '\n' }}\n" +
      "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n";
    const template = new ChatTemplate({ default: chatMl });
    expect(template.isFallback).toBe(false);
    expect(template.render([{ role: "user", content: " Hi " }])).toBe(
      "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    );
    expect(template.render(messages, { addGenerationPrompt: false })).toBe(
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
    );
  });

  test("takes chat_template.jinja before tokenizer_config.json, a string, or a named list", () => {
    const config = { bos_token: { content: "<s>" }, chat_template: "config" };
    const list = [
      { name: "default", template: "d{{ bos_token }}" },
      { name: "tool_use", template: "t{{ tools|length }}" },
    ];
    const load = (files: Record<string, string>) => inDirectory(files, (d) => ChatTemplate.load(d));
    const json = JSON.stringify(config);
    expect(load({ "tokenizer_config.json": json, "chat_template.jinja": "file" }).render(messages)).toBe("file");
    expect(load({ "tokenizer_config.json": json }).render(messages)).toBe("config");
    const named = load({ "tokenizer_config.json": JSON.stringify({ ...config, chat_template: list }) });
    expect(named.render(messages)).toBe("d<s>");
    expect(named.render(messages, { tools: [{}, {}] })).toBe("t2");
  });

  test("without a template messages become plain lines, and tools are refused", () => {
    const template = new ChatTemplate({});
    expect(template.render(messages)).toBe("system: Be brief.\n\nuser: Hi\n\nassistant:");
    const parts = [
      {
        role: "user",
        content: [
          { type: "text", text: "a" },
          { type: "text", text: "b" },
        ],
      },
    ];
    expect(template.render(parts, { addGenerationPrompt: false })).toBe("user: ab\n\n");
    expect(() => template.render(messages, { tools: [{}] })).toThrow(RequestError);
  });

  test("a template's own objection reaches the caller", () => {
    const template = new ChatTemplate({ default: "{{ raise_exception('Roles must alternate') }}" });
    expect(() => template.render(messages)).toThrow("Cannot apply the chat template: Roles must alternate");
  });

  const bombs = {
    "nested loops": "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(1000000000) %}x{% endfor %}",
    "doubling strings":
      "{% set ns = namespace(s='xx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "a recursive macro": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
  };
  for (const [name, text] of Object.entries(bombs)) {
    test(`${name}: refused in bounded time`, () => {
      const started = performance.now();
      expect(() => new ChatTemplate({ default: text }).render(messages)).toThrow(RequestError);
      expect(performance.now() - started).toBeLessThan(4000);
    });
  }

  test("a template that does not parse is a CheckpointError", () => {
    expect(() => new ChatTemplate({ default: "{% if %}" })).toThrow(CheckpointError);
  });
});

describe("loadGenerationConfig()", () => {
  test("reads one eos id or several, and the sampling defaults", () => {
    const text = JSON.stringify({ eos_token_id: [1, 2], temperature: 0.7, top_k: 20, do_sample: true });
    const read = inDirectory({ "generation_config.json": text }, loadGenerationConfig);
    expect(read.eosIds).toEqual([1, 2]);
    expect([read.temperature, read.topK, read.topP, read.doSample]).toEqual([0.7, 20, null, true]);
    const one = inDirectory({ "generation_config.json": '{"eos_token_id": 3}' }, loadGenerationConfig);
    expect(one.eosIds).toEqual([3]);
    expect(inDirectory({}, loadGenerationConfig).eosIds).toEqual([]);
  });

  test("refuses values of the wrong kind", () => {
    for (const text of ['{"eos_token_id": "x"}', '{"temperature": -1}', '{"do_sample": 3}', "[]", "{"]) {
      expect(() => inDirectory({ "generation_config.json": text }, loadGenerationConfig)).toThrow(CheckpointError);
    }
  });
});
