// Turns chat messages into prompt text by the model's own Jinja template, within bounds of time and size.
// Knows messages and strings; not the tokenizer, not HTTP.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { CheckpointError, RequestError } from "../errors.ts";
import { isObject, type Json, readJson, tokenContent } from "./tokenizer_files.ts";

/** One message in OpenAI's form; content may be a list of parts where the template knows such. */
export interface ChatMessage {
  role: string;
  content: string | readonly unknown[] | null;
  [key: string]: unknown;
}

/** What goes into the prompt beside the messages. */
export interface RenderOptions {
  /** End with the opening of an assistant turn (default true). */
  addGenerationPrompt?: boolean;
  tools?: readonly unknown[];
  /** Further variables of the template. */
  variables?: Json;
}

/**
 * Stands in where a model brings no template: each message as `<role>: <content>` on lines of its own, a blank line
 * between them, and `assistant:` at the end.
 */
export const PLAIN_TEMPLATE =
  "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant:{% endif %}";

const MAX_TEMPLATE_CHARS = 1 << 20;
const MAX_VALUE_CHARS = 1 << 23;
const MAX_RANGE = 100_000;
const MAX_MS = 900;
const MAX_STEPS = 5_000_000;

type Program = ReturnType<typeof parse>;

/** A compiled template, or the plain stand-in. */
export class ChatTemplate {
  /** Whether this is the plain stand-in and not the model's own. */
  readonly isFallback: boolean;
  /** The source of what renders a prompt with tools; null for the plain stand-in. */
  readonly toolSource: string | null;
  readonly #program: Program;
  readonly #toolProgram: Program | null;
  readonly #tokens: Json;

  /**
   * Reads chat_template.jinja, else `chat_template` of tokenizer_config.json (one, or a list of named ones of which
   * "default" and "tool_use" are used), else takes PLAIN_TEMPLATE. @throws CheckpointError for a broken template.
   */
  static load(directory: string): ChatTemplate {
    const config = readJson(join(directory, "tokenizer_config.json")) ?? {};
    const special = readJson(join(directory, "special_tokens_map.json")) ?? {};
    const file = join(directory, "chat_template.jinja");
    const named = existsSync(file) ? { default: readFileSync(file, "utf8") } : namedTemplates(config.chat_template);
    return new ChatTemplate(named, { ...special, ...config });
  }

  constructor(named: { default?: string; tool_use?: string }, tokens: Json = {}) {
    this.isFallback = named.default === undefined;
    this.toolSource = named.tool_use ?? named.default ?? null;
    this.#program = compile(named.default ?? PLAIN_TEMPLATE);
    this.#toolProgram = named.tool_use === undefined ? null : compile(named.tool_use);
    this.#tokens = {};
    for (const key of ["bos_token", "eos_token", "unk_token", "pad_token"]) {
      this.#tokens[key] = tokenContent(tokens[key]) ?? "";
    }
  }

  /**
   * The prompt text; the template writes any bos token itself, so encode it without special tokens.
   * @throws RequestError for messages that the template refuses, or that take too long or too much space.
   */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    const hasTools = options.tools !== undefined && options.tools.length > 0;
    if (hasTools && this.isFallback) {
      throw new RequestError("unsupported_tools", "Cannot use tools: this model has no chat template");
    }
    const environment = globals();
    const variables: Json = {
      ...this.#tokens,
      ...options.variables,
      messages: this.isFallback ? messages.map(asPlain) : messages,
      add_generation_prompt: options.addGenerationPrompt ?? true,
      ...(hasTools ? { tools: options.tools } : {}),
    };
    try {
      for (const [name, value] of Object.entries(variables)) environment.set(name, value);
      const program = hasTools && this.#toolProgram !== null ? this.#toolProgram : this.#program;
      const text: unknown = new BoundedInterpreter(environment).run(program).value;
      return typeof text === "string" ? text : "";
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new RequestError("chat_template", `Cannot apply the chat template: ${why}`, { cause });
    }
  }
}

/** The interpreter's every step comes through evaluate(), so that time and sizes can be watched here. */
class BoundedInterpreter extends Interpreter {
  #steps = 0;
  readonly #deadline = performance.now() + MAX_MS;

  override evaluate(...args: Parameters<Interpreter["evaluate"]>): ReturnType<Interpreter["evaluate"]> {
    this.#steps++;
    if (this.#steps > MAX_STEPS || ((this.#steps & 255) === 0 && performance.now() > this.#deadline)) {
      throw new Error(`it takes longer than ${MAX_MS} ms`);
    }
    const result = super.evaluate(...args);
    const value: unknown = result.value;
    if ((typeof value === "string" || Array.isArray(value)) && value.length > MAX_VALUE_CHARS) {
      throw new Error(`it makes a value longer than ${MAX_VALUE_CHARS}`);
    }
    return result;
  }
}

function globals(): Environment {
  const environment = new Environment();
  const values: Json = {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    range: boundedRange,
    strftime_now: formatNow,
  };
  for (const [name, value] of Object.entries(values)) environment.set(name, value);
  return environment;
}

function boundedRange(from: number, to?: number, step = 1): number[] {
  const [start, stop] = to === undefined ? [0, from] : [from, to];
  const count = Math.ceil((stop - start) / step);
  if (step === 0 || !(count <= MAX_RANGE)) throw new Error(`range() of more than ${MAX_RANGE} numbers`);
  return Array.from({ length: Math.max(0, count) }, (_, i) => start + i * step);
}

/** The few strftime fields that chat templates use. */
function formatNow(format: string): string {
  const now = new Date();
  const two = (n: number) => String(n).padStart(2, "0");
  const month = (style: "long" | "short") => now.toLocaleString("en-US", { month: style });
  const fields: Record<string, () => string> = {
    "%Y": () => String(now.getFullYear()),
    "%m": () => two(now.getMonth() + 1),
    "%d": () => two(now.getDate()),
    "%H": () => two(now.getHours()),
    "%M": () => two(now.getMinutes()),
    "%S": () => two(now.getSeconds()),
    "%b": () => month("short"),
    "%B": () => month("long"),
    "%%": () => "%",
  };
  return format.replace(/%[A-Za-z%]/g, (field) => fields[field]?.() ?? field);
}

function compile(template: string): Program {
  if (template.length > MAX_TEMPLATE_CHARS) {
    throw new CheckpointError(
      `Cannot use the chat template: ${template.length} characters, at most ${MAX_TEMPLATE_CHARS}`,
    );
  }
  try {
    return parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true }));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CheckpointError(`Cannot parse the chat template: ${why}`, { cause });
  }
}

function namedTemplates(value: unknown): { default?: string; tool_use?: string } {
  if (typeof value === "string") return { default: value };
  if (!Array.isArray(value)) return {};
  const named: { default?: string; tool_use?: string } = {};
  for (const entry of value) {
    if (!isObject(entry) || typeof entry.template !== "string") continue;
    if (entry.name === "default") named.default = entry.template;
    if (entry.name === "tool_use") named.tool_use = entry.template;
  }
  return named;
}

/** The plain template knows text only: the text parts of a list, joined. */
function asPlain(message: ChatMessage): { role: string; content: string } {
  const { role, content } = message;
  if (typeof content === "string") return { role, content };
  const parts = (content ?? []).map((part) => (isObject(part) && typeof part.text === "string" ? part.text : ""));
  return { role, content: parts.join("") };
}
