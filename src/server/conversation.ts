// A conversation as the ids of a prompt: by the model's chat template, with tools and their results in the form that
// the template knows. Knows no route.

import type { ChatMessage } from "../text/chat_template.ts";
import { callText, type ToolFormat, toolFormatOf, toolPreamble, toolResultText } from "../text/tool_format.ts";
import type { ServerContext } from "./context.ts";
import { HttpError, invalidField } from "./errors.ts";
import { encodePrompt } from "./prompt.ts";
import type { HistoryCall, Tool } from "./tools/schema.ts";

/** A message in the chat's form. */
export interface Message {
  readonly role: "system" | "developer" | "user" | "assistant" | "tool" | "function";
  readonly content?: string | readonly { readonly text: string }[] | null;
  readonly name?: string;
  readonly tool_call_id?: string;
  readonly tool_calls?: readonly HistoryCall[];
  /** Where it stands in the request, for errors; default: its place among the messages. */
  readonly place?: string;
}

/** What goes into the prompt beside the messages. */
export interface ConversationOptions {
  readonly tools?: readonly Tool[];
  /** End with the opening of an answer (default true). */
  readonly addGenerationPrompt?: boolean;
  /** The field that holds the conversation (default "messages"). */
  readonly param?: string;
}

/**
 * The ids of a conversation.
 * @throws HttpError for a message without content, arguments that are no JSON object, or a model without tokenizer;
 * RequestError where the template refuses the messages
 */
export async function encodeConversation(
  context: ServerContext,
  messages: readonly Message[],
  options: ConversationOptions = {},
): Promise<number[]> {
  const { template } = context.text;
  const { tools = [], addGenerationPrompt = true, param = "messages" } = options;
  if (template === null) {
    const message = "This model has no tokenizer: use /v1/completions with token ids";
    throw new HttpError(400, "no_tokenizer", message, param);
  }
  const format = toolFormatOf(template.toolSource);
  const given = messages.map(checkedMessage);
  const shown = format.native ? given : withoutToolRoles(format, given, tools);
  const rendered = template.render(shown, { addGenerationPrompt, ...(format.native ? { tools } : {}) });
  // A model's own template writes the bos token itself.
  return encodePrompt(context, rendered, template.isFallback ? "auto" : "never", param);
}

interface TemplateCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: object };
}

interface TemplateMessage extends ChatMessage {
  content: string;
  tool_calls?: readonly TemplateCall[];
}

/** The message as templates know it: one text, the older names of roles, arguments as objects. */
function checkedMessage(message: Message, at: number): TemplateMessage {
  const { role, content, name, tool_call_id, tool_calls = [], place = `messages[${at}]` } = message;
  if (tool_calls.length > 0 && role !== "assistant") {
    throw invalidField(`${place}.tool_calls`, 'Only messages of role "assistant" hold tool_calls');
  }
  if ((content === undefined || content === null) && tool_calls.length === 0) {
    const missing = `Missing parameter "${place}.content": expected a text or a list of parts`;
    throw new HttpError(400, "missing_parameter", missing, `${place}.content`);
  }
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text).join("\n");
  const calls = tool_calls.map((call, i) => checkedCall(call, `${place}.tool_calls[${i}].function.arguments`));
  return {
    role: role === "developer" ? "system" : role === "function" ? "tool" : role,
    content: text,
    ...(name === undefined ? {} : { name }),
    ...(tool_call_id === undefined ? {} : { tool_call_id }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
}

function checkedCall(call: HistoryCall, param: string): TemplateCall {
  const { name, arguments: json } = call.function;
  return { id: call.id, type: "function", function: { name, arguments: parseArguments(json, param) } };
}

/**
 * The arguments of a call, which are JSON in a text.
 * @throws HttpError naming `param` where they are no object
 */
export function parseArguments(json: string, param: string): object {
  let args: unknown = {};
  try {
    if (json.trim() !== "") args = JSON.parse(json);
  } catch {
    args = null;
  }
  if (typeof args === "object" && args !== null && !Array.isArray(args)) return args;
  throw invalidField(param, `Invalid "${param}": expected a JSON object as text`);
}

/** Puts tools, calls and results into the words of messages that every template knows. */
function withoutToolRoles(
  format: ToolFormat,
  messages: readonly TemplateMessage[],
  tools: readonly Tool[],
): ChatMessage[] {
  const shown: { role: string; content: string; name?: unknown }[] = [];
  for (const { role, content, tool_calls = [], tool_call_id: _, ...rest } of messages) {
    if (role !== "tool") {
      const calls = tool_calls.map(({ function: f }) => callText(format, f.name, JSON.stringify(f.arguments)));
      shown.push({ ...rest, role, content: [...(content === "" ? [] : [content]), ...calls].join("\n") });
      continue;
    }
    const result = toolResultText(content);
    const last = shown.at(-1);
    // Templates that want turns to alternate get the results of one turn as one message.
    if (last?.role === "user" && last.content.endsWith("</tool_response>")) last.content += `\n${result}`;
    else shown.push({ role: "user", content: result });
  }
  if (tools.length === 0) return shown;
  const preamble = toolPreamble(tools);
  const first = shown[0];
  if (first?.role !== "system") return [{ role: "system", content: preamble }, ...shown];
  return [{ ...first, content: `${first.content}\n\n${preamble}` }, ...shown.slice(1)];
}
