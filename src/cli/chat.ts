// The interactive chat of graft run: line editing, history, several lines, commands with a slash, Ctrl-C.
// Knows the conversation, not the engine.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { writeFileAtomically } from "../store/files.ts";
import type { Answer, Conversation } from "./conversation.ts";
import { nearest } from "./suggest.ts";
import { painter } from "./terminal.ts";

const HISTORY_LINES = 1000;
const MULTI_LINE = '"""';

/** What the chat may ask for beside answers. */
export interface ChatHost {
  readonly conversation: Conversation;
  /** Where lines are remembered between runs. */
  readonly historyFile: string;
  /** Names /hybrid takes, the one that answers now first. */
  hybrids(): string[];
  /** Switches; @throws when there is no such hybrid */
  useHybrid(name: string): void;
}

const HELP: Readonly<Record<string, string>> = {
  "/hybrid [NAME]": "show the hybrids, or switch to one",
  "/clear": "forget the conversation",
  "/help": "show this",
  "/bye": "leave (Ctrl-D too)",
};

/** Runs until /bye or the end of the input. */
export async function chat(host: ChatHost): Promise<void> {
  const paint = painter(process.stdout);
  const history = readHistory(host.historyFile);
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    history: [...history],
    historySize: HISTORY_LINES,
    prompt: paint("bold", ">>> "),
    terminal: true,
  });
  let answering: AbortController | null = null;
  lines.on("SIGINT", () => {
    if (answering !== null) answering.abort();
    else {
      process.stdout.write(`\n${paint("dim", "/bye or Ctrl-D leaves")}\n`);
      lines.prompt();
    }
  });
  lines.on("history", (entries: string[]) => {
    history.splice(0, history.length, ...entries);
  });
  process.stdout.write(`${paint("dim", `Answers come from ${host.hybrids()[0]}; /help shows the commands`)}\n`);
  lines.prompt();
  let open: string[] | null = null;
  for await (const line of lines) {
    const input = joinLines(line, open);
    open = input.open;
    if (input.text !== null && input.text.trim() !== "") {
      answering = new AbortController();
      if (!(await respond(host, input.text, answering.signal, paint))) break;
      answering = null;
    }
    lines.setPrompt(paint("bold", open === null ? ">>> " : "... "));
    lines.prompt();
  }
  lines.close();
  writeFileAtomically(host.historyFile, `${history.slice(0, HISTORY_LINES).reverse().join("\n")}\n`);
}

/** Collects the lines between two `"""`; `text` is null while more is to come. */
export function joinLines(line: string, open: string[] | null): { text: string | null; open: string[] | null } {
  if (open === null) {
    if (!line.trimStart().startsWith(MULTI_LINE)) return { text: line, open: null };
    const rest = line.trimStart().slice(MULTI_LINE.length);
    if (rest.trimEnd().endsWith(MULTI_LINE)) return { text: rest.trimEnd().slice(0, -MULTI_LINE.length), open: null };
    return { text: null, open: rest === "" ? [] : [rest] };
  }
  if (!line.trimEnd().endsWith(MULTI_LINE)) return { text: null, open: [...open, line] };
  const last = line.trimEnd().slice(0, -MULTI_LINE.length);
  return { text: [...open, ...(last === "" ? [] : [last])].join("\n"), open: null };
}

/** Does what the line says; false to leave. */
async function respond(
  host: ChatHost,
  text: string,
  signal: AbortSignal,
  paint: ReturnType<typeof painter>,
): Promise<boolean> {
  const [word = "", ...rest] = text.trim().split(/\s+/);
  try {
    if (word === "/bye" || word === "/exit" || word === "/quit") return false;
    if (word === "/help") {
      for (const [command, help] of Object.entries(HELP)) process.stdout.write(`  ${command.padEnd(16)} ${help}\n`);
    } else if (word === "/clear") {
      host.conversation.clear();
    } else if (word === "/hybrid") {
      if (rest[0] === undefined) process.stdout.write(`${host.hybrids().join("\n")}\n`);
      else host.useHybrid(rest[0]);
    } else if (word.startsWith("/") && rest.length === 0) {
      const hint = nearest(word, ["/hybrid", "/clear", "/help", "/bye"]);
      process.stdout.write(`There is no ${word}${hint === null ? "" : `, did you mean ${hint}?`}\n`);
    } else {
      const answer = await host.conversation.ask(text, (piece) => process.stdout.write(piece), signal);
      process.stdout.write(`\n${paint("dim", rateLine(answer))}\n`);
    }
  } catch (error) {
    process.stdout.write(`${paint("red", "error:")} ${error instanceof Error ? error.message : String(error)}\n`);
  }
  return true;
}

/** `12 tokens, 240 tokens/s, first after 31 ms`. */
export function rateLine({ usage, seconds, firstSeconds, finishReason }: Answer): string {
  const after = usage.completionTokens - 1;
  const rate = after > 0 && seconds > firstSeconds ? `, ${Math.round(after / (seconds - firstSeconds))} tokens/s` : "";
  const stopped = finishReason === "cancelled" ? ", stopped" : "";
  return `${usage.completionTokens} tokens${rate}, first after ${Math.round(firstSeconds * 1000)} ms${stopped}`;
}

/** Newest first, as the line editor wants it. */
function readHistory(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .reverse();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}
