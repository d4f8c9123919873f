// What an answer may be where it may hold calls of tools: free text, or calls alone, with arguments that fit each tool.

import type { CompiledGrammar, GrammarSpec } from "../../grammar/compile.ts";
import { callFrame } from "../../text/tool_format.ts";
import type { ServerContext } from "../context.ts";
import { HttpError } from "../errors.ts";
import { compiledGrammar } from "../structured_outputs.ts";
import type { ToolUse } from "./use.ts";

/** A tool that names no parameters takes any object. */
const ANY_ARGUMENTS = { type: "object" };

/**
 * The grammar of an answer under `use`; null where nothing may be called.
 * @throws HttpError naming the tool whose parameters cannot be followed; CapacityError
 */
export async function toolGrammar(context: ServerContext, use: ToolUse | null): Promise<CompiledGrammar | null> {
  if (use === null) return null;
  try {
    return await compiledGrammar(context, { param: "tools", spec: toolSpec(use) });
  } catch (error) {
    throw error instanceof HttpError ? aboutTool(error, use) : error;
  }
}

function callable({ tools, callable: names }: ToolUse) {
  return tools.filter((tool) => names.has(tool.function.name));
}

function toolSpec(use: ToolUse): GrammarSpec {
  const { format, required, multiple } = use;
  const tags = callable(use).map(({ function: { name, parameters } }) => ({
    ...callFrame(format, name),
    schema: parameters ?? ANY_ARGUMENTS,
    // What opens a call can only go on as one.
    ...(format.open === "" ? {} : { trigger: format.open }),
  }));
  return { kind: "tagged", tags, required, multiple };
}

/** The same refusal, in the request's own words. */
function aboutTool(error: HttpError, use: ToolUse): HttpError {
  const at = /#\/tags\/(\d+)\/schema/.exec(error.message);
  const tool = at === null ? undefined : callable(use)[Number(at[1])];
  if (at === null || tool === undefined) return error;
  const param = `tools[${use.tools.indexOf(tool)}].function.parameters`;
  return new HttpError(error.status, error.code, error.message.replace(at[0], `${param}#`), param);
}
