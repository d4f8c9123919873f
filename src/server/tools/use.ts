// What a request's tools mean for its prompt, its answer and what may be generated. Knows no route.

import { type ToolFormat, toolFormatOf } from "../../text/tool_format.ts";
import type { ServerContext } from "../context.ts";
import { invalidField } from "../errors.ts";
import type { Tool } from "./schema.ts";

/** Tools that the model may call. */
export interface ToolUse {
  readonly format: ToolFormat;
  /** All that were given; they stand in the prompt. */
  readonly tools: readonly Tool[];
  /** What may be called: all, or the one that was named. */
  readonly callable: ReadonlySet<string>;
  /** The answer must be a call. */
  readonly required: boolean;
  /** It may be several. */
  readonly multiple: boolean;
}

/** The fields as any route gives them; `choice` is a word, or the name of a tool. */
export interface ToolFields {
  readonly tools: readonly Tool[] | undefined;
  readonly choice: "none" | "auto" | "required" | { readonly name: string } | undefined;
  readonly parallel: boolean | undefined;
}

/**
 * null where nothing may be called.
 * @throws HttpError for two tools of one name, and for a choice that is none of the tools
 */
export function toolUse(context: ServerContext, { tools = [], choice = "auto", parallel }: ToolFields): ToolUse | null {
  const names = new Set<string>();
  for (const [i, tool] of tools.entries()) {
    const { name } = tool.function;
    if (names.has(name)) throw invalidField(`tools[${i}]`, `Invalid "tools": two of them are called "${name}"`);
    names.add(name);
  }
  if (choice === "none" || (tools.length === 0 && choice === "auto")) return null;
  if (tools.length === 0) throw invalidField("tool_choice", 'Parameter "tool_choice" needs "tools" to choose from');
  const named = typeof choice === "object" ? choice.name : null;
  if (named !== null && !names.has(named)) {
    throw invalidField("tool_choice", `Invalid "tool_choice": there is no tool "${named}"`);
  }
  return {
    format: toolFormatOf(context.text.template?.toolSource ?? null),
    tools,
    callable: named === null ? names : new Set([named]),
    required: choice !== "auto",
    multiple: parallel !== false && named === null,
  };
}
