// Flags of every command that runs kernels: which device, which library, where it is put, how many threads. Opens nothing.
import { resolve } from "node:path";
import { RequestError } from "../errors.ts";
import { deviceNames, isaNames, type LibraryOptions } from "../ops/library.ts";
import { type Flags, THREADS_FLAG } from "./config.ts";

/** Where the kernels run. */
const DEVICE_FLAG = {
  type: "string",
  choices: deviceNames,
  default: "auto",
  help: "where to compute; auto: on a CUDA device where one answers, else on the processor",
} as const;

export const KERNEL_FLAGS = {
  device: DEVICE_FLAG,
  threads: THREADS_FLAG,
  isa: { type: "string", choices: ["auto", ...isaNames], default: "auto", help: "instruction set of the kernels" },
  "lib-dir": {
    type: "string",
    value: "DIR",
    help: "where the executable puts its kernel libraries (default: the temporary folder)",
  },
} as const;

/** The same for commands that train. */
export const TRAINING_FLAGS = {
  ...KERNEL_FLAGS,
  device: { ...DEVICE_FLAG, help: "training computes on the processor: auto and cpu are the same, cuda is refused" },
} as const;

/** Flag of every command that loads a model to compute with. */
export const DTYPE_FLAG = {
  type: "string",
  choices: ["f32", "bf16"],
  help: "weights in memory (default: as in the checkpoint; on a CUDA device bf16)",
} as const;

/** Flag of every command whose engine may lie on a device. */
export const MEMORY_FRACTION_FLAG = {
  type: "number",
  min: 0.01,
  max: 1,
  value: "PART",
  help: "part of a CUDA device's free memory to use, weights included (default 0.9)",
} as const;

/** Flag of every command whose engine serves linear layers. */
export const STATE_DTYPE_FLAG = {
  type: "string",
  choices: ["f32", "bf16"],
  default: "f32",
  help: "type of the recurrent states",
} as const;

type KernelFlags = Flags<typeof KERNEL_FLAGS>;

/** The same as options of a library: only what was given. */
export function kernelOptions(given: KernelFlags): LibraryOptions {
  return {
    device: given.device,
    isa: given.isa,
    ...(given.threads === undefined ? {} : { threads: given.threads }),
    ...(given["lib-dir"] === undefined ? {} : { extractTo: resolve(given["lib-dir"]) }),
  };
}

/** The same for a command that trains, which only the processor can. @throws RequestError where a device is asked for */
export function trainingOptions(given: KernelFlags): LibraryOptions {
  if (given.device !== "cuda") return { ...kernelOptions(given), device: "cpu" };
  throw new RequestError(
    "no_training_on_device",
    "Cannot use --device cuda: training runs on the processor only; give --device cpu, or leave --device and GRAFT_DEVICE out",
  );
}

/** What a process that this one starts does with its kernels. */
export type KernelUse = "training" | "scoring";

/** What a job of a kind does with its kernels. */
export function kernelUse(kind: string): KernelUse {
  return kind === "convert" || kind === "pretrain" ? "training" : "scoring";
}

/**
 * The same as words for a job's process: its kernels are those of the server that starts it, but training is for the
 * processor. The device is named in any case: the job would take its own from the environment.
 */
export function kernelWords(given: KernelFlags, use: KernelUse): string[] {
  return [
    ...["--device", use === "training" ? "cpu" : given.device],
    ...(given.isa === "auto" ? [] : ["--isa", given.isa]),
    ...(given["lib-dir"] === undefined ? [] : ["--lib-dir", resolve(given["lib-dir"])]),
  ];
}
