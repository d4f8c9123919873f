// What graft finds on this machine: processor, kernels, memory, GPU, data folder. Leaves everything as it was and
// prints nothing.
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { driverObstacle } from "../ops/device_probe.ts";
import {
  hasCudaKernels,
  type Isa,
  isaNames,
  type LibraryOptions,
  processorFlags,
  supportedIsas,
} from "../ops/library.ts";
import { Ops } from "../ops/ops.ts";

export interface Finding {
  readonly topic: string;
  /** A problem keeps graft from working; a note does not. */
  readonly state: "ok" | "note" | "problem";
  readonly text: string;
}

export interface Surroundings {
  readonly version: string;
  readonly dataDir: string;
  readonly kernels?: LibraryOptions;
  /** Root of the file system to look for the GPU driver in. */
  readonly root?: string;
}

const ok = (topic: string, text: string): Finding => ({ topic, state: "ok", text });
const note = (topic: string, text: string): Finding => ({ topic, state: "note", text });
const problem = (topic: string, text: string): Finding => ({ topic, state: "problem", text });
const gibibytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** Everything worth knowing before the first command, in the order to print it. */
export async function examine(around: Surroundings): Promise<Finding[]> {
  const root = around.root ?? "/";
  return [
    ok("graft", around.version),
    ok("bun", `${Bun.version} on ${process.platform} ${process.arch}`),
    ...(await kernels(around.kernels ?? {})),
    ...memory(),
    gpu(root),
    ...(await device(around.kernels ?? {}, root)),
    ok("compilers", "not needed: the kernels are compiled already (g++ only to build graft from source)"),
    temporaryFolder(),
    dataFolder(around.dataDir),
  ];
}

/** Flags that decide which library runs. */
const INTERESTING = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16"];

async function kernels(options: LibraryOptions): Promise<Finding[]> {
  const isa = options.isa ?? "auto";
  const flags = processorFlags();
  const present = INTERESTING.filter((flag) => flags.has(flag));
  const supported: Isa[] = supportedIsas().filter((name) => name !== "reference");
  const features = ok("features", present.join(" ") || "none of those the kernels use");
  if (supported.length === 0) {
    return [features, problem("kernels", "the processor has no AVX2 and FMA: only the slow reference kernels run")];
  }
  try {
    const ops = await Ops.load({ ...options, device: "cpu" });
    const { name, threads } = ops.info() as { name: string; threads: number };
    const others = isaNames.filter((other) => other !== ops.isa && supported.includes(other));
    const rest = others.length === 0 ? "" : `; also possible: ${others.join(", ")}`;
    const chosen = `${ops.isa}${isa === "auto" ? "" : " (asked for)"} with ${threads} threads${rest}`;
    return [ok("processor", name), features, ok("kernels", chosen)];
  } catch (cause) {
    return [features, problem("kernels", (cause as Error).message)];
  }
}

function memory(): Finding[] {
  const info = new Map(
    [...readFileSync("/proc/meminfo", "utf8").matchAll(/^(\w+):\s+(\d+) kB$/gm)].map(([, key, kb]) => [
      key,
      Number(kb) * 1024,
    ]),
  );
  const [total, available] = [info.get("MemTotal") ?? 0, info.get("MemAvailable") ?? 0];
  const text = `${gibibytes(available)} available of ${gibibytes(total)}`;
  const pages = "/sys/kernel/mm/transparent_hugepage/enabled";
  const huge = existsSync(pages) ? (/\[(\w+)\]/.exec(readFileSync(pages, "utf8"))?.[1] ?? "never") : "never";
  return [
    available < 2 ** 30 ? note("memory", `${text}: room for very small models only`) : ok("memory", text),
    huge === "never"
      ? note("huge pages", "off: reading weights is slower (set transparent_hugepage/enabled to madvise)")
      : ok("huge pages", huge),
  ];
}

const DRIVER_FOLDERS = ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "usr/local/cuda/compat", "usr/lib/wsl/lib"];

/** Whether an NVIDIA driver and its library are there. */
function gpu(root: string): Finding {
  const driver = join(root, "proc/driver/nvidia");
  const library = DRIVER_FOLDERS.map((folder) => join(root, folder, "libcuda.so.1")).find(existsSync);
  if (!existsSync(driver) && library === undefined) {
    return note("gpu", "no NVIDIA driver (no /proc/driver/nvidia, no libcuda.so.1)");
  }
  const version = readIf(join(driver, "version")).match(/Kernel Module\s+(?:for \S+\s+)?([\d.]+)/)?.[1];
  const cards = existsSync(join(driver, "gpus")) ? readdirSync(join(driver, "gpus")) : [];
  const models = cards.map(
    (card) => /Model:\s+(.*)/.exec(readIf(join(driver, "gpus", card, "information")))?.[1] ?? card,
  );
  const found = [`driver ${version ?? "of unknown version"}`, library ?? "no libcuda.so.1", ...models].join(", ");
  return ok("gpu", found);
}

/** What CUDA kernels this build has, and the device that answers them; a problem only where one was asked for. */
async function device(options: LibraryOptions, root: string): Promise<Finding[]> {
  const asked = options.device === "cuda";
  const absent = (text: string) =>
    asked ? problem("device", text) : note("device", `${text}: the processor computes`);
  const build = (await hasCudaKernels())
    ? ok("cuda kernels", "in this build, for compute capability 8.0 and newer")
    : note("cuda kernels", "not in this build: npm run build makes them where nvcc is on the PATH");
  const obstacle = build.state === "ok" ? driverObstacle(root) : "no CUDA kernels";
  if (obstacle !== null) return [build, absent(obstacle)];
  try {
    const { threads: _threads, isa: _isa, ...rest } = options;
    const ops = await Ops.load({ ...rest, device: "cuda" });
    return [build, ok("device", describeDevice(ops, options))];
  } catch (cause) {
    return [build, absent((cause as Error).message.replace(/^Cannot use --device cuda: /, ""))];
  }
}

/** One line about a CUDA device that answers. */
export function describeDevice(ops: Ops, { device, isa = "auto" }: LibraryOptions): string {
  const { name, isa: capability, threads, features, memory: total, free } = ops.info() as DeviceInfo;
  const words = [
    `${name}, compute capability ${capability.replace(/^sm_(\d+)(\d)$/, "$1.$2")}, ${threads} multiprocessors`,
    `${gibibytes(free)} free of ${gibibytes(total)}`,
    ...features,
  ];
  const chosen = device !== "cpu" && isa === "auto" ? "" : "; not used: the processor is asked for";
  return `${words.join(", ")}${chosen}`;
}

/** What a CUDA library says of its device. */
type DeviceInfo = {
  readonly name: string;
  readonly isa: string;
  readonly threads: number;
  /** As the library puts it: its driver, and what it found beside. */
  readonly features: readonly string[];
  readonly memory: number;
  readonly free: number;
};

function readIf(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

function temporaryFolder(): Finding {
  try {
    rmSync(mkdtempSync(join(tmpdir(), "graft-doctor-")), { recursive: true });
    return ok("temporary files", `${tmpdir()} is writable`);
  } catch (cause) {
    return problem("temporary files", `cannot write to ${tmpdir()}: ${(cause as Error).message}; set TMPDIR`);
  }
}

/** The data folder, or the nearest parent that exists, must be writable. */
function dataFolder(path: string): Finding {
  let existing = path;
  while (!existsSync(existing)) existing = dirname(existing);
  try {
    if (!statSync(existing).isDirectory()) return problem("data folder", `${path}: ${existing} is not a folder`);
    accessSync(existing, constants.W_OK);
  } catch {
    return problem("data folder", `${path}: ${existing} is not writable; choose another with GRAFT_HOME or --data-dir`);
  }
  const { bavail, bsize } = statfsSync(existing);
  const text = `${path}${existing === path ? "" : " (made when needed)"}, ${gibibytes(bavail * bsize)} free`;
  return bavail * bsize < 2 ** 28 ? note("data folder", `${text}: little room for pools`) : ok("data folder", text);
}
