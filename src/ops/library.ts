// Finds, picks and opens the kernel library: a CUDA device's, or the newest instruction set this processor has, or the one
// asked for. In the executable the libraries are embedded; in a checkout they lie in build/kernels. Knows no ops.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { RequestError } from "../errors.ts";
import { writeFileAtomically } from "../store/files.ts";
import { ABI_VERSION, type KernelLibrary, openLibrary } from "./abi.ts";
import { driverObstacle } from "./device_probe.ts";
import { type KernelClock, timedLibrary } from "./kernel_clock.ts";

/** Kernel libraries by instruction set, `reference` being the plain truth that the others are tested against. */
export const isaNames = ["reference", "avx2", "avx512", "avx512_bf16"] as const;
/** One of them. */
export type Isa = (typeof isaNames)[number];

/** A library of another kind of device: a CUDA device, or its emulator, which only tests use. */
export type DeviceKind = "cuda" | "simt";
/** What a person may ask for; auto: a CUDA device where one answers, else the processor. */
export const deviceNames = ["auto", "cpu", "cuda"] as const;
/** One of them. */
export type DeviceName = (typeof deviceNames)[number];

const embedded: Readonly<Record<Isa | "cuda", () => Promise<{ default: string }>>> = {
  reference: () => import("../../build/kernels/libgraft_reference.so", { with: { type: "file" } }),
  avx2: () => import("../../build/kernels/libgraft_cpu_avx2.so", { with: { type: "file" } }),
  avx512: () => import("../../build/kernels/libgraft_cpu_avx512.so", { with: { type: "file" } }),
  avx512_bf16: () => import("../../build/kernels/libgraft_cpu_avx512_bf16.so", { with: { type: "file" } }),
  // Empty where it was built without nvcc.
  cuda: () => import("../../build/kernels/libgraft_cuda.so", { with: { type: "file" } }),
};

const AVX2 = ["avx2", "fma", "bmi2", "f16c", "movbe"];
const AVX512 = [...AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"];

/** Processor flags each library needs, as /proc/cpuinfo spells them. */
const needs: Readonly<Record<Isa, readonly string[]>> = {
  reference: [],
  avx2: AVX2,
  avx512: AVX512,
  avx512_bf16: [...AVX512, "avx512_bf16"],
};

/** Which library is opened, and from where. */
export interface LibraryOptions {
  /** Absent: the processor. The emulator's library is taken from `directory`. */
  readonly device?: DeviceName | DeviceKind;
  /** Instruction set of the processor; absent or "auto": the best it has. Naming one chooses the processor. */
  readonly isa?: Isa | "auto";
  /** Threads of the kernels; absent or 0: one per core. */
  readonly threads?: number;
  /** Folder with other builds of the libraries, for example with sanitizers. */
  readonly directory?: string;
  /** Where to write embedded libraries when the temporary folder does not allow execution. */
  readonly extractTo?: string;
  /** Writes them there in a checkout too, where they already lie in a folder. */
  readonly extractAlways?: boolean;
  /** Counts the time inside kernels. */
  readonly timeKernels?: boolean;
}

/** A library after graft_init. */
export interface OpenedLibrary {
  readonly symbols: KernelLibrary;
  readonly isa: Isa | DeviceKind;
  /** Why a choice left to "auto" did not fall on a CUDA device; null where it did, or was not left. */
  readonly passedOver: string | null;
  /** sha256 of the library: what it computes may differ from build to build. */
  readonly digest: string;
  /** null unless asked for. */
  readonly clock: KernelClock | null;
}

/** Flags of this machine's processor. */
export function processorFlags(): ReadonlySet<string> {
  const info = readFileSync("/proc/cpuinfo", "utf8");
  return new Set(/^flags\s*:\s*(.*)$/m.exec(info)?.[1]?.split(" ") ?? []);
}

/** Instruction sets this processor can run, best last. */
export function supportedIsas(): Isa[] {
  const flags = processorFlags();
  return isaNames.filter((isa) => needs[isa].every((flag) => flags.has(flag)));
}

/** Opens and initialises a library. @throws RequestError for a device or an instruction set that is not there */
export async function openKernels(options: LibraryOptions = {}): Promise<OpenedLibrary> {
  const { device = "cpu", isa = "auto" } = options;
  if (device === "cpu") return openProcessor(options);
  if (device !== "auto") {
    if (isa === "auto") return openDevice(device, options);
    throw new RequestError("kernel_library", `Cannot use --isa ${isa} with --device ${device}: it is the processor's`);
  }
  if (isa !== "auto") return openProcessor(options);
  try {
    return await openDevice("cuda", options);
  } catch (error) {
    // Also one that cannot be opened, such as a library of other sources: the processor's says so where it is the same.
    if (!(error instanceof RequestError)) throw error;
    const passedOver = error instanceof DeviceAbsent ? error.reason : error.message;
    return { ...(await openProcessor(options)), passedOver };
  }
}

/** Whether this build has kernels for CUDA devices at all. */
export async function hasCudaKernels(): Promise<boolean> {
  return Bun.file((await embedded.cuda()).default).size > 0;
}

/** No device answers; `reason` says why without naming a flag. */
class DeviceAbsent extends RequestError {
  readonly reason: string;
  constructor(device: string, reason: string) {
    super("no_device", `Cannot use --device ${device}: ${reason}`);
    this.name = "RequestError";
    this.reason = reason;
  }
}

async function openDevice(device: DeviceKind, options: LibraryOptions): Promise<OpenedLibrary> {
  if (device === "simt") {
    if (options.directory !== undefined) return start(device, join(options.directory, "libgraft_simt.so"), options);
    throw new RequestError("kernel_library", "Cannot use simt: name the folder of its library");
  }
  if (!(await hasCudaKernels())) {
    throw new DeviceAbsent(
      device,
      "this build has no CUDA kernels: npm run build makes them where nvcc is on the PATH",
    );
  }
  // Before the library is opened, which takes a while.
  const obstacle = driverObstacle();
  if (obstacle !== null) throw new DeviceAbsent(device, obstacle);
  return start(device, await libraryPath(device, options), options);
}

async function openProcessor(options: LibraryOptions): Promise<OpenedLibrary> {
  const supported = supportedIsas();
  const isa = options.isa === undefined || options.isa === "auto" ? supported.at(-1)! : options.isa;
  if (!supported.includes(isa)) {
    throw new RequestError("unsupported_isa", `Cannot use --isa ${isa}: this processor offers ${supported.join(", ")}`);
  }
  return start(isa, await libraryPath(isa, options), options);
}

function start(isa: OpenedLibrary["isa"], path: string, options: LibraryOptions): OpenedLibrary {
  const symbols = open(path);
  const digest = createHash("sha256").update(readFileSync(path)).digest("hex");
  const status = symbols.graft_init(options.threads ?? 0);
  if (status !== 0 && isa === "cuda") throw new DeviceAbsent(isa, String(symbols.graft_last_error()));
  if (status !== 0)
    throw new RequestError("kernel_library", `Cannot start the ${isa} kernels: ${symbols.graft_last_error()}`);
  const opened = { symbols, isa, digest, passedOver: null, clock: null };
  if (options.timeKernels !== true) return opened;
  const clock = { seconds: 0, calls: 0 };
  return { ...opened, symbols: timedLibrary(symbols, clock), clock };
}

const OTHER_FOLDER = "name a folder that may be written and executed from with --lib-dir DIR or GRAFT_LIB_DIR";

/** @throws RequestError, with the way out where the system refuses the file */
function open(path: string): KernelLibrary {
  let symbols: KernelLibrary;
  try {
    symbols = openLibrary(path);
  } catch (cause) {
    throw new RequestError("kernel_library", `${(cause as Error).message}; ${OTHER_FOLDER}`, { cause });
  }
  const version = symbols.graft_abi_version();
  if (version === ABI_VERSION) return symbols;
  throw new RequestError("kernel_library", `Cannot use "${path}": its ABI is ${version}, expected ${ABI_VERSION}`);
}

async function libraryPath(isa: Isa | "cuda", options: LibraryOptions): Promise<string> {
  const file = `libgraft_${isa === "reference" || isa === "cuda" ? isa : `cpu_${isa}`}.so`;
  if (options.directory !== undefined) return join(options.directory, file);
  const path = (await embedded[isa]()).default;
  if (options.extractTo === undefined || (!isEmbedded(path) && options.extractAlways !== true)) return path;
  return extractedLibrary(await Bun.file(path).bytes(), file, options.extractTo);
}

function isEmbedded(path: string): boolean {
  return path.startsWith("/$bunfs");
}

/** Puts a library into a folder under a name that its content decides, once; a damaged copy is written again. @throws RequestError */
function extractedLibrary(bytes: Uint8Array, file: string, folder: string): string {
  const digest = createHash("sha256").update(bytes).digest("hex").slice(0, 16);
  const target = join(folder, file.replace(".so", `-${digest}.so`));
  if (existsSync(target) && readFileSync(target).equals(bytes)) return target;
  try {
    writeFileAtomically(target, bytes);
  } catch (cause) {
    const why = `Cannot put the kernels into "${folder}": ${(cause as Error).message}`;
    throw new RequestError("kernel_library", `${why}; ${OTHER_FOLDER}`, { cause });
  }
  return target;
}
