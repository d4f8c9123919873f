// Builds the kernel libraries into build/kernels with g++ (cuda: nvcc), recompiling only what changed.
//   bun kernels/build.ts [reference|avx2|avx512|avx512_bf16|simt|cuda|all] [--optional-cuda] [--sanitize] [--report]
// simt is kernels/cuda compiled for the emulator in kernels/simt. all: everything but cuda. --optional-cuda adds cuda where
// nvcc is on the PATH. The program can only be bundled with a file in that library's place: an empty one stands in.
// --report (with cuda): registers, shared memory, spills and stack of every CUDA kernel; exit 1 where a hot one spills.
// --sanitize adds AddressSanitizer and UndefinedBehaviorSanitizer and writes to build/kernels-sanitize.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { isAssemblerNote, notesFile, reportResources } from "./resources.ts";

const root = dirname(import.meta.dir);
const kernels = join(root, "kernels");

const host = (march: string, ...flags: string[]) => [`-march=${march}`, ...flags];

/** Flags of the libraries whose sources are plain C++: folder and instruction set. */
const hostTargets = {
  reference: { folder: "reference", flags: host("x86-64") },
  avx2: { folder: "cpu", flags: host("x86-64-v3") },
  avx512: { folder: "cpu", flags: host("x86-64-v4") },
  avx512_bf16: { folder: "cpu", flags: host("x86-64-v4", "-mavx512bf16") },
} as const;
/** Every library; cuda needs nvcc. */
export const targetNames = ["reference", "avx2", "avx512", "avx512_bf16", "simt", "cuda"] as const;
/** Name of a library. */
export type Target = (typeof targetNames)[number];

/** File name of a library. */
export function libraryFile(target: Target): string {
  const cpu = target === "avx2" || target === "avx512" || target === "avx512_bf16";
  return `libgraft_${cpu ? "cpu_" : ""}${target}.so`;
}

const language = ["-std=c++20"];
const includes = [`-I${join(kernels, "include")}`, `-I${join(kernels, "common")}`];
const warnings = ["-Wall", "-Wextra", "-Werror"];
const gcc = [
  "g++",
  ...language,
  "-O3",
  "-g1",
  "-fPIC",
  "-fvisibility=hidden",
  "-ffp-contract=off",
  "-fno-math-errno",
  "-fno-trapping-math",
  ...warnings,
  "-pthread",
  ...includes,
];
const simtIncludes = [`-I${join(kernels, "simt")}`, `-I${join(kernels, "cuda")}`];
// The hooks of the sanitizers are the emulator's own (kernels/simt/access.cpp), so their libraries are not linked.
const emulated = ["-x", "c++", "-include", join(kernels, "simt", "simt.h"), "-fsanitize=thread,alignment"];
const simt = [...gcc, "-O2", "-ftls-model=initial-exec", "-Wno-unknown-pragmas", ...simtIncludes];
const nvcc = [
  "nvcc",
  ...language,
  "-O3",
  // A product and a sum are one operation only where fmaf() says so: kernels that share a row give it the same bits,
  // wherever the compiler inlines what they share.
  "-fmad=false",
  "-gencode=arch=compute_80,code=sm_80",
  "-gencode=arch=compute_90a,code=sm_90a",
  "-gencode=arch=compute_90,code=compute_90",
  "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror",
  "-Werror=all-warnings",
  "--expt-relaxed-constexpr",
  "-Xptxas=-v",
  ...includes,
];

/** Source files of one folder and the command that compiles them. */
interface Part {
  readonly folder: string;
  readonly extension: ".cpp" | ".cu";
  readonly compiler: readonly string[];
}

/** Steps of a layer that each kind of library makes of its single ops (kernels/composed). */
const composed = {
  reference: ["projections", "attention_step", "gla_step", "gdn_step"],
  cpu: ["attention_step", "gla_step", "gdn_step"],
  cuda: [],
} as const;

function composedParts(kind: keyof typeof composed, compiler: readonly string[]): Part[] {
  const names = [...composed[kind], "scratch"];
  return names.map((name) => ({ folder: `composed/${name}.cpp`, extension: ".cpp", compiler }));
}

interface Plan {
  readonly parts: readonly Part[];
  /** Folders whose headers every object depends on. */
  readonly headers: readonly string[];
  readonly link: readonly string[];
}

const linkHost = ["g++", "-shared", "-pthread", "-Wl,--no-undefined"];

function planOf(target: Target, extra: readonly string[]): Plan {
  if (target === "cuda") {
    const parts: Part[] = [
      { folder: "cuda", extension: ".cu", compiler: nvcc },
      { folder: "common/status.cpp", extension: ".cpp", compiler: gcc },
      ...composedParts("cuda", gcc),
    ];
    return {
      parts,
      headers: ["include", "common", "composed", "cuda"],
      link: ["nvcc", "-shared", "-cudart", "static"],
    };
  }
  if (target === "simt") {
    const parts: Part[] = [
      { folder: "cuda", extension: ".cu", compiler: [...simt, ...emulated] },
      { folder: "simt", extension: ".cu", compiler: [...simt, ...emulated] },
      { folder: "simt", extension: ".cpp", compiler: simt },
      { folder: "common/status.cpp", extension: ".cpp", compiler: gcc },
      ...composedParts("cuda", gcc),
    ];
    return { parts, headers: ["include", "common", "composed", "cuda", "simt"], link: linkHost };
  }
  const { folder, flags } = hostTargets[target];
  const compiler = [...gcc, ...flags, ...extra];
  const parts: Part[] = ["common", folder].map((name) => ({ folder: name, extension: ".cpp", compiler }));
  parts.push(...composedParts(folder, compiler));
  return { parts, headers: ["include", "common", "composed", folder], link: [...linkHost, ...extra] };
}

async function run(command: string[]): Promise<void> {
  const child = Bun.spawn(command, { stdout: "inherit", stderr: "inherit" });
  if ((await child.exited) !== 0) throw new Error(`Cannot compile: ${command.join(" ")}`);
}

/** Compiles, and keeps what the assembler says of every kernel beside the object; the rest is shown. */
async function compile({ object, command }: Job): Promise<void> {
  if (command[0] !== "nvcc") return run(command);
  const child = Bun.spawn(command, { stdout: "inherit", stderr: "pipe" });
  const said = await new Response(child.stderr).text();
  const other = said.split("\n").filter((line) => line !== "" && !isAssemblerNote(line));
  if (other.length > 0) console.error(other.join("\n"));
  if ((await child.exited) !== 0) throw new Error(`Cannot compile: ${command.join(" ")}`);
  writeFileSync(notesFile(object), said);
}

/** The files of a folder, or the one file that a part names. */
function sourcesOf({ folder, extension }: Part): string[] {
  if (folder.endsWith(extension)) return [join(kernels, folder)];
  return readdirSync(join(kernels, folder))
    .filter((name) => name.endsWith(extension))
    .map((name) => join(kernels, folder, name))
    .sort();
}

/** A checkout that moves, or is copied, keeps what it has built. */
function inRoot(text: string): string {
  return text.replaceAll(`${root}/`, "");
}

function hashOfHeaders(folders: readonly string[]): string {
  const hash = createHash("sha256");
  for (const dir of folders) {
    for (const name of readdirSync(join(kernels, dir)).sort()) {
      if (name.endsWith(".h")) hash.update(readFileSync(join(kernels, dir, name)));
    }
  }
  return hash.digest("hex");
}

interface Job {
  object: string;
  command: string[];
  stamp: string;
}

interface Work {
  readonly objects: string[];
  /** What a library that is linked from them now is made of. */
  readonly list: string;
  readonly jobs: Job[];
  readonly plan: Plan;
}

function compileJobs(target: Target, outDir: string, extra: string[]): Work {
  const plan = planOf(target, extra);
  const headers = hashOfHeaders(plan.headers);
  const objects: string[] = [];
  const list: string[] = [];
  const jobs: Job[] = [];
  const sources = plan.parts.flatMap((part) => sourcesOf(part).map((source) => ({ source, compiler: part.compiler })));
  for (const { source, compiler } of sources) {
    const object = join(outDir, "obj", target, `${source.slice(kernels.length + 1).replaceAll("/", "_")}.o`);
    const command = [...compiler, "-c", source, "-o", object];
    const stamp = createHash("sha256")
      .update(headers)
      .update(readFileSync(source))
      .update(inRoot(command.join("\0")))
      .digest("hex");
    objects.push(object);
    list.push(`${inRoot(object)} ${stamp}`);
    const whole = existsSync(object) && (command[0] !== "nvcc" || existsSync(notesFile(object)));
    const old = whole && existsSync(`${object}.stamp`) ? readFileSync(`${object}.stamp`, "utf8") : "";
    if (old !== stamp) jobs.push({ object, command, stamp });
  }
  return { objects, list: list.join("\n"), jobs, plan };
}

/** Builds the given libraries and returns their paths. @throws if a compiler is missing or a source does not compile. */
export async function buildKernels(which: readonly Target[], options: { sanitize?: boolean } = {}): Promise<string[]> {
  if (Bun.which("g++") === null) {
    throw new Error("Cannot build the kernels: g++ is not installed; install it (Debian: apt-get install g++)");
  }
  if (which.includes("cuda") && Bun.which("nvcc") === null) {
    throw new Error("Cannot build the CUDA kernels: nvcc is not on the PATH; install the CUDA toolkit");
  }
  const outDir = join(root, "build", options.sanitize ? "kernels-sanitize" : "kernels");
  const extra = options.sanitize ? ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] : [];
  const plans = which.map((target) => ({ target, ...compileJobs(target, outDir, extra) }));
  for (const { target } of plans) mkdirSync(join(outDir, "obj", target), { recursive: true });
  const queue = plans.flatMap((plan) => plan.jobs);
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      await compile(job);
      writeFileSync(`${job.object}.stamp`, job.stamp);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const paths: string[] = [];
  for (const { target, objects, list, plan } of plans) {
    const path = join(outDir, libraryFile(target));
    // By their stamps: a run that failed elsewhere may have compiled some of them and linked nothing.
    const known = existsSync(`${path}.objects`) ? readFileSync(`${path}.objects`, "utf8") : "";
    if (!existsSync(path) || statSync(path).size === 0 || known !== list) {
      const temporary = `${path}.${process.pid}.tmp`;
      await run([...plan.link, ...objects, "-o", temporary]);
      renameSync(temporary, path);
      writeFileSync(`${path}.objects`, list);
    }
    paths.push(path);
  }
  return paths;
}

/**
 * What programs without CUDA kernels are bundled with, an empty file. A library that nvcc made, here or elsewhere, stays
 * unless it is known to be of other sources.
 */
function standInForCuda(): void {
  const outDir = join(root, "build", "kernels");
  const path = join(outDir, libraryFile("cuda"));
  const known = existsSync(`${path}.objects`) ? readFileSync(`${path}.objects`, "utf8") : null;
  if (existsSync(path) && (known === null || known === compileJobs("cuda", outDir, []).list)) return;
  rmSync(`${path}.objects`, { force: true });
  writeFileSync(path, "");
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  const names = args.filter((a) => !a.startsWith("--"));
  const all = targetNames.filter((name) => name !== "cuda");
  const which = names.length === 0 || names.includes("all") ? [...all] : (names as Target[]);
  const nvccThere = Bun.which("nvcc") !== null;
  if (args.includes("--optional-cuda") && nvccThere && !which.includes("cuda")) which.push("cuda");
  for (const name of which) {
    if (targetNames.includes(name)) continue;
    throw new Error(`Unknown kernel library "${name}": known are ${targetNames.join(", ")}, all`);
  }
  try {
    for (const path of await buildKernels(which, { sanitize: args.includes("--sanitize") })) console.log(path);
    if (!args.includes("--sanitize") && !which.includes("cuda")) standInForCuda();
    if (args.includes("--report") && !(await reportResources(join(root, "build", "kernels")))) process.exit(1);
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exit(1);
  }
}
