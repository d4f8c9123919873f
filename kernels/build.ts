// Builds the kernel libraries into build/kernels with g++, recompiling only what changed.
//   bun kernels/build.ts [reference|avx2|avx512|avx512_bf16|all] [--sanitize]
// --sanitize adds AddressSanitizer and UndefinedBehaviorSanitizer and writes to build/kernels-sanitize.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dir);
const kernels = join(root, "kernels");

/** Library name -> source folder and target flags. */
export const targets = {
  reference: { folder: "reference", flags: ["-march=x86-64"] },
  avx2: { folder: "cpu", flags: ["-march=x86-64-v3"] },
  avx512: { folder: "cpu", flags: ["-march=x86-64-v4"] },
  avx512_bf16: { folder: "cpu", flags: ["-march=x86-64-v4", "-mavx512bf16"] },
} as const;
/** Name of a library. */
export type Target = keyof typeof targets;

/** File name of a library. */
export function libraryFile(target: Target): string {
  return target === "reference" ? "libgraft_reference.so" : `libgraft_cpu_${target}.so`;
}

const common = [
  "-std=c++20",
  "-O3",
  "-g1",
  "-fPIC",
  "-fvisibility=hidden",
  "-ffp-contract=off",
  "-fno-math-errno",
  "-fno-trapping-math",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-pthread",
  `-I${join(kernels, "include")}`,
  `-I${join(kernels, "common")}`,
];

async function run(command: string[]): Promise<void> {
  const child = Bun.spawn(command, { stdout: "inherit", stderr: "inherit" });
  if ((await child.exited) !== 0) throw new Error(`Cannot compile: ${command.join(" ")}`);
}

function sourcesIn(folder: string): string[] {
  return readdirSync(join(kernels, folder))
    .filter((name) => name.endsWith(".cpp"))
    .map((name) => join(kernels, folder, name))
    .sort();
}

/** A checkout that moves, or is copied, keeps what it has built. */
function inRoot(text: string): string {
  return text.replaceAll(`${root}/`, "");
}

function hashOfHeaders(folder: string): string {
  const hash = createHash("sha256");
  for (const dir of ["include", "common", folder]) {
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

function compileJobs(target: Target, outDir: string, extra: string[]): { objects: string[]; jobs: Job[] } {
  const { folder, flags } = targets[target];
  const headers = hashOfHeaders(folder);
  const objects: string[] = [];
  const jobs: Job[] = [];
  for (const source of [...sourcesIn("common"), ...sourcesIn(folder)]) {
    const object = join(outDir, "obj", target, `${source.slice(kernels.length + 1).replaceAll("/", "_")}.o`);
    const command = ["g++", ...common, ...flags, ...extra, "-c", source, "-o", object];
    const stamp = createHash("sha256")
      .update(headers)
      .update(readFileSync(source))
      .update(inRoot(command.join("\0")))
      .digest("hex");
    objects.push(object);
    const old = existsSync(`${object}.stamp`) && existsSync(object) ? readFileSync(`${object}.stamp`, "utf8") : "";
    if (old !== stamp) jobs.push({ object, command, stamp });
  }
  return { objects, jobs };
}

/** Builds the given libraries and returns their paths. @throws if g++ is missing or a source does not compile. */
export async function buildKernels(which: readonly Target[], options: { sanitize?: boolean } = {}): Promise<string[]> {
  if (Bun.which("g++") === null) {
    throw new Error("Cannot build the kernels: g++ is not installed; install it (Debian: apt-get install g++)");
  }
  const outDir = join(root, "build", options.sanitize ? "kernels-sanitize" : "kernels");
  const extra = options.sanitize ? ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] : [];
  const plans = which.map((target) => ({ target, ...compileJobs(target, outDir, extra) }));
  for (const { target } of plans) mkdirSync(join(outDir, "obj", target), { recursive: true });
  const queue = plans.flatMap((plan) => plan.jobs);
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      await run(job.command);
      writeFileSync(`${job.object}.stamp`, job.stamp);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const paths: string[] = [];
  for (const { target, objects } of plans) {
    const path = join(outDir, libraryFile(target));
    // With their stamps: a run that failed elsewhere may have compiled some of them and linked nothing.
    const list = objects.map((object) => `${inRoot(object)} ${readFileSync(`${object}.stamp`, "utf8")}`).join("\n");
    const known = existsSync(`${path}.objects`) ? readFileSync(`${path}.objects`, "utf8") : "";
    if (!existsSync(path) || known !== list) {
      const temporary = `${path}.${process.pid}.tmp`;
      await run(["g++", "-shared", "-pthread", ...extra, "-Wl,--no-undefined", ...objects, "-o", temporary]);
      renameSync(temporary, path);
      writeFileSync(`${path}.objects`, list);
    }
    paths.push(path);
  }
  return paths;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  const names = args.filter((a) => !a.startsWith("--"));
  const all = Object.keys(targets) as Target[];
  const which = names.length === 0 || names.includes("all") ? all : (names as Target[]);
  for (const name of which) {
    if (!(name in targets)) throw new Error(`Unknown kernel library "${name}": known are ${all.join(", ")}, all`);
  }
  try {
    for (const path of await buildKernels(which, { sanitize: args.includes("--sanitize") })) console.log(path);
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exit(1);
  }
}
