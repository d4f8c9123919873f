// How a model writes calls of tools: which form its chat template teaches it, and a form of our own for templates that
// know no tools. Knows texts; not the requests they come from, not how calls are read back.

/** What stands around the JSON of a call's arguments. */
export interface ToolFormat {
  readonly name: "hermes" | "llama3";
  /** Whether the model's own template takes the list of tools; else toolPreamble() goes into the system message. */
  readonly native: boolean;
  /** What opens a call wherever it stands; "": a call is an answer that begins with its JSON. */
  readonly open: string;
  /** What follows the JSON of a call. */
  readonly close: string;
  /** The key of the arguments. */
  readonly argumentsKey: "arguments" | "parameters";
}

const HERMES: ToolFormat = {
  name: "hermes",
  native: true,
  open: "<tool_call>",
  close: "</tool_call>",
  argumentsKey: "arguments",
};

const LLAMA3: ToolFormat = { name: "llama3", native: true, open: "", close: "", argumentsKey: "parameters" };

/**
 * The form that a chat template's source teaches: Hermes and Qwen write `<tool_call>{json}</tool_call>`, Llama 3 bare
 * JSON. null (no template), or one that knows no tools or another form, gets the Hermes form by our own instruction.
 */
export function toolFormatOf(template: string | null): ToolFormat {
  if (template === null || !/\btools\b/.test(template)) return { ...HERMES, native: false };
  // Some templates put calls that are no JSON between the same tags.
  if (template.includes("<tool_call>") && !template.includes("<function=")) return HERMES;
  if (/ipython|<\|python_tag\|>/.test(template) && /\\?"parameters\\?":/.test(template)) return LLAMA3;
  return { ...HERMES, native: false };
}

/** The text around the arguments of a call of `name`. */
export function callFrame(format: ToolFormat, name: string): { readonly begin: string; readonly end: string } {
  const head = `{"name": ${JSON.stringify(name)}, "${format.argumentsKey}": `;
  if (format.open === "") return { begin: head, end: "}" };
  return { begin: `${format.open}\n${head}`, end: `}\n${format.close}` };
}

/** A call as the model would have written it; `args` is JSON. */
export function callText(format: ToolFormat, name: string, args: string): string {
  const { begin, end } = callFrame(format, name);
  return begin + args + end;
}

/** Tells a model whose template knows no tools which there are and how to call them. */
export function toolPreamble(tools: readonly unknown[]): string {
  return `# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
${tools.map((tool) => JSON.stringify(tool)).join("\n")}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>`;
}

/** A tool's result for a model whose template knows no such role. */
export function toolResultText(content: string): string {
  return `<tool_response>\n${content}\n</tool_response>`;
}
