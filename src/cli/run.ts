// graft run: one answer streamed to standard output, or an interactive chat. The engine runs in this process.

import { join } from "node:path";
import { startEngine } from "../engine/client.ts";
import type { EngineClient, SamplingParams } from "../engine/types.ts";
import { HybridRegistry, type ServedName } from "../server/hybrid_registry.ts";
import { loadModelText, type ModelText } from "../server/model_text.ts";
import { Store } from "../store/database.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { chat, rateLine } from "./chat.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, type Flags, JSON_FLAG } from "./config.ts";
import { Conversation } from "./conversation.ts";
import { type ModelArgument, resolveModel } from "./model_argument.ts";
import { ENGINE_FLAGS, engineOptions } from "./serve.ts";

const flags = {
  system: { type: "string", value: "TEXT", help: "system message of a chat" },
  mode: {
    type: "string",
    choices: ["auto", "chat", "text"],
    default: "auto",
    help: "answer a message, or continue a text (auto: chat where the model brings a template)",
  },
  "max-tokens": { type: "integer", min: 1, value: "N", help: "most tokens to generate", default: 512 },
  temperature: {
    type: "number",
    min: 0,
    max: 2,
    value: "T",
    help: "0 takes the most likely token (default: the model's)",
  },
  "top-p": { type: "number", min: 1e-6, max: 1, value: "P", help: "nucleus mass" },
  "top-k": { type: "integer", min: 0, value: "K", help: "keep the k most likely tokens" },
  "min-p": { type: "number", min: 0, max: 1, value: "P", help: "drop tokens below this part of the top probability" },
  seed: { type: "integer", min: 0, value: "N", help: "for equal answers to equal questions" },
  stop: { type: "string", multiple: true, value: "TEXT", help: "end before this text" },
  verbose: { type: "boolean", short: "v", help: "print tokens/s after the answer" },
  ...ENGINE_FLAGS,
  "data-dir": DATA_DIR_FLAG,
  json: JSON_FLAG,
} as const;

type RunFlags = Flags<typeof flags>;

export const runCommand = defineCommand(
  {
    name: "run",
    summary: "Answers one prompt, or chats",
    positionals: ["MODEL", "[PROMPT...]"],
    flags,
    details: `Without a prompt it chats on a terminal and reads the prompt from a pipe. In the chat, lines between """ belong
together, /hybrid NAME switches, Ctrl-C stops the answer and /help shows the rest.`,
    examples: ['graft run ./tiny1m "Once upon a time" --temperature 0', "graft run tiny1m:recall"],
  },
  async ({ flags, positionals }) => {
    const [argument, ...words] = positionals;
    const store = Store.open(flags["data-dir"]);
    let engine: EngineClient | null = null;
    try {
      const model = resolveModel(store, argument!);
      const text = withTokenizer(loadModelText(model.path), model);
      engine = await startEngine({ ...engineOptions(model, flags), maxSequences: 1 });
      const hybrids = new HybridRegistry(engine, store, model.name);
      await hybrids.sync();
      const served = hybrids.resolve(model.hybrid === null ? undefined : `${model.name}:${model.hybrid}`);
      const conversation = new Conversation(conversationOptions(engine, text, flags), served.hybrid);
      const interactive = words.length === 0 && process.stdin.isTTY === true;
      if (interactive) await chat(chatHost(conversation, hybrids, served, join(store.dir.root, "history")));
      else await answerOnce(conversation, words.length > 0 ? words.join(" ") : await readInput(), served, flags);
      return 0;
    } finally {
      await engine?.close();
      store.close();
    }
  },
);

function withTokenizer(text: ModelText, model: ModelArgument): ModelText & { tokenizer: Tokenizer } {
  const { tokenizer } = text;
  if (tokenizer !== null) return { ...text, tokenizer };
  throw new TypeError(`Cannot chat with "${model.name}": it has no tokenizer; serve it and send token ids instead`);
}

function conversationOptions(engine: EngineClient, text: ModelText & { tokenizer: Tokenizer }, given: RunFlags) {
  const { defaults } = text;
  const sampling: SamplingParams = {
    temperature: given.temperature ?? (defaults.doSample === false ? 0 : (defaults.temperature ?? 1)),
    topP: given["top-p"] ?? defaults.topP ?? 1,
    topK: given["top-k"] ?? defaults.topK ?? 0,
    minP: given["min-p"] ?? defaults.minP ?? 0,
    seed: given.seed ?? Math.floor(Math.random() * 2 ** 32),
  };
  return {
    engine,
    text,
    sampling,
    maxTokens: given["max-tokens"],
    stop: given.stop,
    chat: given.mode === "chat" || (given.mode === "auto" && text.template?.isFallback === false),
    system: given.system ?? null,
  };
}

function chatHost(conversation: Conversation, hybrids: HybridRegistry, served: ServedName, historyFile: string) {
  let current = served.id;
  return {
    conversation,
    historyFile,
    hybrids: () => [
      current,
      ...hybrids
        .names()
        .map((name) => name.id)
        .filter((id) => id !== current),
    ],
    useHybrid(name: string) {
      const known = hybrids.names().some((one) => one.id === name);
      const found = hybrids.resolve(known ? name : `${hybrids.backbone}:${name}`);
      conversation.hybrid = found.hybrid;
      current = found.id;
    },
  };
}

async function readInput(): Promise<string> {
  const text = await Bun.stdin.text();
  return text.endsWith("\n") ? text.slice(0, -1) : text;
}

async function answerOnce(
  conversation: Conversation,
  prompt: string,
  served: ServedName,
  given: RunFlags,
): Promise<void> {
  const stop = new AbortController();
  const onInterrupt = () => stop.abort();
  process.once("SIGINT", onInterrupt);
  const write = given.json ? () => {} : (piece: string) => void process.stdout.write(piece);
  const answer = await conversation.ask(prompt, write, stop.signal);
  process.off("SIGINT", onInterrupt);
  if (given.json) process.stdout.write(`${JSON.stringify({ model: served.id, ...answer })}\n`);
  else process.stdout.write("\n");
  if (given.verbose) process.stderr.write(`${rateLine(answer)}\n`);
}
