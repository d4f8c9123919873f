// The input of a response as the messages of a conversation.

import { type Message, parseArguments } from "../conversation.ts";
import type { HistoryCall, Tool } from "../tools/schema.ts";
import type { ResponseBody, ResponseItem } from "./schema.ts";

/**
 * Instructions, then the items in their order; calls that follow each other are one message's.
 * @throws HttpError for a call whose arguments are no JSON object
 */
export function messagesOf(body: ResponseBody): Message[] {
  const messages: Message[] = [];
  if (body.instructions !== undefined) messages.push({ role: "system", content: body.instructions });
  const items: readonly ResponseItem[] =
    typeof body.input === "string" ? [{ role: "user", content: body.input }] : body.input;
  for (const [i, item] of items.entries()) {
    const place = `input[${i}]`;
    if (item.type === "function_call_output") {
      messages.push({ role: "tool", content: textOf(item.output), tool_call_id: item.call_id, place });
    } else if (item.type === "function_call") addCall(messages, item, place);
    else messages.push({ role: item.role, content: textOf(item.content), place });
  }
  return messages;
}

function addCall(messages: Message[], item: ResponseItem & { readonly type: "function_call" }, place: string): void {
  parseArguments(item.arguments, `${place}.arguments`);
  const call: HistoryCall = { id: item.call_id, function: { name: item.name, arguments: item.arguments } };
  const last = messages.at(-1);
  if (last?.role !== "assistant") messages.push({ role: "assistant", content: "", tool_calls: [call] });
  else messages[messages.length - 1] = { ...last, tool_calls: [...(last.tool_calls ?? []), call] };
}

function textOf(content: string | readonly { readonly text: string }[]): string {
  return typeof content === "string" ? content : content.map((part) => part.text).join("\n");
}

/** The tools in the chat's form. */
export function toolsOf(body: ResponseBody): Tool[] {
  return (body.tools ?? []).map(({ type, name, description, parameters, strict }) => ({
    type,
    function: {
      name,
      ...(description === undefined || description === null ? {} : { description }),
      ...(parameters === undefined || parameters === null ? {} : { parameters }),
      ...(strict === undefined || strict === null ? {} : { strict }),
    },
  }));
}
