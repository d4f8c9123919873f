// What a run on a CUDA device consists of, the most wanted first: each section is one command that prints JSON.

/** How a section's output is read: rows as they come, or one document at the end. */
export type OutputForm = "lines" | "document";

export interface SectionPlan {
  readonly name: string;
  /** Of graft, or of Python for peers. */
  readonly program: "graft" | "python";
  readonly args: readonly string[];
  readonly form: OutputForm;
  /** It is stopped after so many minutes; what it has said by then stays. */
  readonly minutes: number;
}

/** What the sections are made for. */
export interface SectionOptions {
  /** auto, cuda or cpu; the latter two also for PyTorch. */
  readonly device: string;
  readonly shapes: readonly string[];
  readonly contexts: string;
  readonly batches: string;
  readonly tokens: number;
  readonly repeats: number;
  /** Most sequences that a largest batch may have. */
  readonly maxBatch: number;
  /** config.json of a shape. */
  readonly configFile: (shape: string) => string;
  /** Layers of a shape. */
  readonly numLayers: (shape: string) => number;
}

/** All sections for the shapes: the first shape's come first. */
export function sectionPlans(options: SectionOptions): SectionPlan[] {
  const [first, ...others] = options.shapes;
  if (first === undefined) return [];
  const [second, ...rest] = others;
  const few = second === undefined ? [] : [second];
  return [
    selftest(options),
    decode(options, first),
    prefill(options, first),
    ...few.map((shape) => decode(options, shape)),
    kernels(options, first),
    peer(options, first),
    ...few.flatMap((shape) => [prefill(options, shape), kernels(options, shape), peer(options, shape)]),
    ...rest.flatMap((shape) => [decode(options, shape), prefill(options, shape)]),
    smallStates(options, first),
    ...few.map((shape) => smallStates(options, shape)),
  ];
}

function graft(name: string, form: OutputForm, minutes: number, args: string[], options: SectionOptions): SectionPlan {
  return { name, program: "graft", form, minutes, args: [...args, "--device", options.device] };
}

function selftest(options: SectionOptions): SectionPlan {
  return graft("selftest", "document", 3, ["selftest", "--json"], options);
}

function decode(options: SectionOptions, shape: string): SectionPlan {
  return graft(`decode ${shape}`, "lines", 6, decodeArgs(options, shape, replacedOf(options, shape)), options);
}

/** None, a quarter, half, three quarters, and all of the layers. */
function replacedOf({ numLayers }: SectionOptions, shape: string): number[] {
  const layers = numLayers(shape);
  return [...new Set([0, 1, 2, 3, 4].map((quarter) => Math.round((quarter * layers) / 4)))];
}

function decodeArgs(options: SectionOptions, shape: string, replaced: readonly number[]): string[] {
  const { contexts, batches, tokens, repeats, maxBatch } = options;
  const sizes = ["--contexts", contexts, "--batch", batches, "--tokens", `${tokens}`, "--repeats", `${repeats}`];
  const what = ["--shape", shape, "--replaced", replaced.join(","), "--max-batch", `${maxBatch}`];
  return ["bench", "decode", ...what, ...sizes, "--prompts", "random", "-o", "jsonl"];
}

/** States in bfloat16, and those of the key/value heads alone: what shortens the dip at short contexts. */
function smallStates(options: SectionOptions, shape: string): SectionPlan {
  const replaced = [0, Math.round(options.numLayers(shape) / 2), options.numLayers(shape)];
  const args = decodeArgs({ ...options, batches: "16,max" }, shape, replaced);
  return graft(
    `decode ${shape}, gla, bf16 states`,
    "lines",
    4,
    [...args, "--variant", "gla", "--state-dtype", "bf16"],
    options,
  );
}

function prefill(options: SectionOptions, shape: string): SectionPlan {
  const layers = options.numLayers(shape);
  const args = [
    "--shape",
    shape,
    "--contexts",
    options.contexts,
    "--replaced",
    `0,${Math.round(layers / 2)},${layers}`,
  ];
  const all = ["bench", "prefill", ...args, "--repeats", `${Math.min(2, options.repeats)}`, "-o", "jsonl"];
  return graft(`prefill ${shape}`, "lines", 4, all, options);
}

/** Only a device has these cases; the processor's own are others. */
function kernels(options: SectionOptions, shape: string): SectionPlan {
  const device = options.device === "cpu" ? ["--filter", "linear 1 "] : ["--shape", shape];
  const args = ["bench", "kernels", ...device, "--seconds", "0.1", "--json"];
  return graft(`kernels ${shape}`, "document", 4, args, options);
}

function peer(options: SectionOptions, shape: string): SectionPlan {
  const { contexts, batches, tokens, repeats, device } = options;
  const numbers = batches.split(",").filter((batch) => batch !== "max");
  const sizes = [
    "--contexts",
    contexts,
    "--batches",
    numbers.join(","),
    "--tokens",
    `${tokens}`,
    "--repeats",
    `${repeats}`,
  ];
  const what = [options.configFile(shape), "--name", shape, "--device", device === "auto" ? "cuda" : device];
  return {
    name: `pytorch ${shape}`,
    program: "python",
    args: ["bench/peers/pytorch_decode.py", ...what, ...sizes, "--minutes", "5"],
    form: "lines",
    minutes: 6,
  };
}
