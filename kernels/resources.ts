// What the assembler says of every CUDA kernel: registers, shared memory, spills, stack. Reads the notes that build.ts
// keeps beside the objects; writes build/cuda_resources.md.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** Sources whose kernels run in every layer of every step: a spilled register there costs tokens per second. */
const HOT = /^(few_rows|linear_many|linear_wgmma|norm|activation|rope|rows|attention|gla|gdn|conv|gates)(_\w+)?\.cu$/;

/** One kernel compiled for one target. */
export interface Resources {
  readonly file: string;
  readonly kernel: string;
  readonly target: string;
  registers: number;
  /** Bytes: fixed shared memory, stack of a thread, spilled and read again. */
  shared: number;
  stack: number;
  stores: number;
  loads: number;
}

/** Where the notes about an object lie. */
export function notesFile(object: string): string {
  return `${object}.notes`;
}

/** Whether a line of the compiler's is a note on a kernel rather than a complaint. */
export function isAssemblerNote(line: string): boolean {
  return /^ptxas info|^\s+\d+ bytes stack frame|^nvcc (info|warning) : /.test(line);
}

/** The notes on one source file; `file` names it. */
export function parseNotes(file: string, notes: string): { kernels: Resources[]; remarks: string[] } {
  const kernels: Resources[] = [];
  const remarks = new Set<string>();
  let current: Resources | null = null;
  for (const line of notes.split("\n")) {
    const entry = /Compiling entry function '(\S+)' for '(\S+)'/.exec(line);
    const frame = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (entry) {
      const [, kernel, target] = entry;
      current = { file, kernel: kernel!, target: target!, registers: 0, shared: 0, stack: 0, stores: 0, loads: 0 };
      kernels.push(current);
    } else if (frame && current !== null) {
      [current.stack, current.stores, current.loads] = [Number(frame[1]), Number(frame[2]), Number(frame[3])];
    } else if (/Used \d+ registers/.test(line) && current !== null) {
      current.registers = Number(/Used (\d+) registers/.exec(line)![1]);
      current.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0);
      current = null;
    } else if (/serialized|Potential Performance/i.test(line)) {
      remarks.add(`${file}: ${line.trim()}`);
    }
  }
  return { kernels, remarks: [...remarks] };
}

/** Kernels that must not spill and do. */
export function hotSpills(list: readonly Resources[]): Resources[] {
  return list.filter(({ file, stores, loads }) => HOT.test(file) && stores + loads > 0);
}

/** Names as they are written, without namespaces and parameters. */
function readable(names: readonly string[]): string[] {
  if (Bun.which("c++filt") === null) return [...names];
  const text = Bun.spawnSync(["c++filt"], { stdin: Buffer.from(names.join("\n")) }).stdout.toString();
  return text
    .trimEnd()
    .split("\n")
    .map((name) =>
      name
        .replaceAll("(anonymous namespace)::", "")
        .replaceAll("graft::gpu::", "")
        .replace(/^void /, "")
        .replace(/\((?!int\)|bool\)|unsigned int\)|long\))[^<>]*\)$/, "")
        .replaceAll(/\((int|bool|unsigned int|long)\)/g, ""),
    );
}

function tableOf(list: readonly Resources[]): string {
  const rows = list.map(({ file, kernel, target, registers, shared, stack, stores, loads }) => {
    return [file, kernel, target, registers, shared, stack, stores, loads, HOT.test(file) ? "hot" : ""].map(String);
  });
  const head = ["file", "kernel", "target", "registers", "shared", "stack", "spilled", "reloaded", ""];
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

/** Prints the table and writes it to build/. False, with a line for each, where hot kernels spill. */
export async function reportResources(built: string): Promise<boolean> {
  const objects = join(built, "obj", "cuda");
  const sources = readdirSync(join(import.meta.dir, "cuda")).filter((name) => name.endsWith(".cu"));
  const list: Resources[] = [];
  const remarks: string[] = [];
  for (const name of sources.sort()) {
    const path = notesFile(join(objects, `cuda_${name}.o`));
    if (!existsSync(path)) throw new Error(`Cannot report: ${name} has not been compiled; run with cuda`);
    const notes = parseNotes(name, readFileSync(path, "utf8"));
    list.push(...notes.kernels);
    remarks.push(...notes.remarks);
  }
  const names = readable(list.map(({ kernel }) => kernel));
  const named = list.map((one, i) => ({ ...one, kernel: names[i]! }));
  const table = tableOf(named);
  const file = join(dirname(built), "cuda_resources.md");
  writeFileSync(file, `${table}\n`);
  console.log(table);
  for (const remark of remarks) console.log(`remark: ${remark}`);
  const spilling = hotSpills(named);
  for (const { file, kernel, target, stores } of spilling) {
    console.error(`error: ${kernel} of ${file} spills ${stores} bytes for ${target}: it is a hot kernel`);
  }
  console.log(`${list.length} kernels, ${spilling.length} hot ones spill: ${file}`);
  return spilling.length === 0;
}
