// Flags of every command that runs kernels: which library, where it is put, how many threads. Opens nothing.
import { resolve } from "node:path";
import { isaNames, type LibraryOptions } from "../ops/library.ts";
import { type Flags, THREADS_FLAG } from "./config.ts";

export const KERNEL_FLAGS = {
  threads: THREADS_FLAG,
  isa: { type: "string", choices: ["auto", ...isaNames], default: "auto", help: "instruction set of the kernels" },
  "lib-dir": {
    type: "string",
    value: "DIR",
    help: "where the executable puts its kernel libraries (default: the temporary folder)",
  },
} as const;

/** Flag of every command whose engine serves linear layers. */
export const STATE_DTYPE_FLAG = {
  type: "string",
  choices: ["f32", "bf16"],
  default: "f32",
  help: "type of the recurrent states",
} as const;

/** The same as options of a library: only what was given. */
export function kernelOptions(given: Flags<typeof KERNEL_FLAGS>): LibraryOptions {
  return {
    isa: given.isa,
    ...(given.threads === undefined ? {} : { threads: given.threads }),
    ...(given["lib-dir"] === undefined ? {} : { extractTo: resolve(given["lib-dir"]) }),
  };
}

/** The same as words for a job's process: its kernels are those of the server that starts it. */
export function kernelWords(given: Flags<typeof KERNEL_FLAGS>): string[] {
  const words = given.isa === "auto" ? [] : ["--isa", given.isa];
  return given["lib-dir"] === undefined ? words : [...words, "--lib-dir", resolve(given["lib-dir"])];
}
