// A backend's memory and statuses: allocation, copies between host and device, errors. Knows no op.
import { toArrayBuffer } from "bun:ffi";
import { DeviceLostError, KernelError } from "../errors.ts";
import type { DeviceMemory } from "../tensor/arena.ts";
import { type DType, dtypeBytes, dtypeCode } from "../tensor/dtype.ts";
import { bytesOf, numel, type Tensor } from "../tensor/tensor.ts";
import type { KernelLibrary } from "./abi.ts";
import { Allocations } from "./allocations.ts";
import type { KernelClock } from "./kernel_clock.ts";
import { type LibraryOptions, type OpenedLibrary, openKernels } from "./library.ts";

/** Arrays whose bytes can be handed to a kernel as they are. */
export type HostArray = Float32Array | Int32Array | Uint16Array | Uint8Array | Float64Array | Uint32Array;

const STAGING_BYTES = 1 << 22;
/** GRAFT_DEVICE of graft.h. */
const STATUS_DEVICE = 4;
/** GRAFT_OUT_OF_MEMORY. */
const STATUS_OUT_OF_MEMORY = 3;

/** An opened kernel library and the memory it gives. */
export class Device implements DeviceMemory {
  readonly symbols: KernelLibrary;
  readonly isa: OpenedLibrary["isa"];
  /** Why a choice left to the library did not fall on a CUDA device, or null. */
  readonly passedOver: string | null;
  /** sha256 of the kernel library. */
  readonly digest: string;
  /** Time inside kernels, where it is counted. */
  readonly clock: KernelClock | null;
  // Bun moves the storage of small typed arrays, so bytes always cross through memory that the library allocated.
  readonly #staging: number;
  readonly #stagingBytes: Uint8Array;
  protected readonly allocations = new Allocations((kind, ptr) => {
    if (kind === "device") this.freeBytes(ptr);
    else this.hostFree(ptr);
  });

  protected constructor({ symbols, isa, passedOver, clock, digest }: OpenedLibrary) {
    this.symbols = symbols;
    this.isa = isa;
    this.passedOver = passedOver;
    this.digest = digest;
    this.clock = clock;
    this.#staging = this.hostAlloc(STAGING_BYTES);
    this.#stagingBytes = new Uint8Array(toArrayBuffer(this.#staging as never, 0, STAGING_BYTES));
  }

  protected static async open(options: LibraryOptions) {
    return await openKernels(options);
  }

  /** The processor, or a CUDA device (its emulator too). */
  get kind(): "cpu" | "cuda" {
    return this.isa === "cuda" || this.isa === "simt" ? "cuda" : "cpu";
  }

  /** What the library says of the device it runs on. */
  info(): Record<string, unknown> {
    this.check("deviceInfo", this.symbols.graft_device_info(this.#staging as never, 65536));
    const end = this.#stagingBytes.indexOf(0);
    return JSON.parse(new TextDecoder().decode(this.#stagingBytes.slice(0, end))) as Record<string, unknown>;
  }

  /** Changes the number of kernel threads; 0 = one per core. */
  setThreads(threads: number): void {
    this.check("init", this.symbols.graft_init(threads));
  }

  /** Runs `body`; where it throws, whatever it allocated and has not freed is freed. */
  allOrNothing<T>(body: () => T): T {
    return this.allocations.allOrNothing(body);
  }

  allocBytes(bytes: number): number {
    const ptr = Number(this.symbols.graft_alloc(bytes));
    if (ptr !== 0) {
      this.allocations.add("device", ptr);
      return ptr;
    }
    const why = this.lastError();
    if (this.#isLost()) throw lost(why);
    throw new KernelError(`Cannot allocate ${bytes} bytes of device memory: ${why}`, { code: "out_of_memory" });
  }

  freeBytes(ptr: number): void {
    this.allocations.remove("device", ptr);
    this.symbols.graft_free(ptr as never);
  }

  /** A new zeroed tensor that lives until free(). @throws KernelError when memory is out. */
  empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
    let bytes = dtypeBytes[dtype];
    for (const d of shape) bytes *= d;
    return { ptr: this.allocBytes(Math.max(bytes, 1)), shape, dtype };
  }

  free(t: Tensor): void {
    this.freeBytes(t.ptr);
  }

  /** A new tensor with a copy of `array`. @throws RangeError if the sizes differ. */
  fromArray(shape: readonly number[], array: HostArray, dtype: DType = dtypeOfArray(array)): Tensor {
    const t = this.empty(shape, dtype);
    this.upload(t, array);
    return t;
  }

  /** Copies host bytes into a tensor of exactly that many bytes. */
  upload(dst: Tensor, src: HostArray): void {
    if (src.byteLength !== bytesOf(dst)) {
      throw new RangeError(`Cannot upload: array has ${src.byteLength} bytes, tensor [${dst.shape}] ${bytesOf(dst)}`);
    }
    const bytes = new Uint8Array(src.buffer, src.byteOffset, src.byteLength);
    for (let at = 0; at < bytes.length; at += STAGING_BYTES) {
      const part = bytes.subarray(at, at + STAGING_BYTES);
      this.#stagingBytes.set(part);
      this.check("upload", this.symbols.graft_upload((dst.ptr + at) as never, this.#staging as never, part.length));
    }
  }

  /** Copies a tensor's bytes into a host array of exactly that size. */
  download(src: Tensor, dst: HostArray): void {
    if (dst.byteLength !== bytesOf(src)) {
      throw new RangeError(`Cannot download: array has ${dst.byteLength} bytes, tensor [${src.shape}] ${bytesOf(src)}`);
    }
    const bytes = new Uint8Array(dst.buffer, dst.byteOffset, dst.byteLength);
    for (let at = 0; at < bytes.length; at += STAGING_BYTES) {
      const count = Math.min(STAGING_BYTES, bytes.length - at);
      this.check("download", this.symbols.graft_download(this.#staging as never, (src.ptr + at) as never, count));
      bytes.set(this.#stagingBytes.subarray(0, count), at);
    }
  }

  /** The values of an f32 tensor (or of bf16/f16, widened). */
  toFloat32(t: Tensor): Float32Array {
    const out = new Float32Array(numel(t));
    if (t.dtype === "f32") {
      this.download(t, out);
      return out;
    }
    const wide = this.empty(t.shape, "f32");
    try {
      this.convert(wide, t);
      this.download(wide, out);
    } finally {
      this.free(wide);
    }
    return out;
  }

  /** The values of an i32 tensor. */
  toInt32(t: Tensor): Int32Array {
    if (t.dtype !== "i32") throw new TypeError(`Cannot read integers: tensor is ${t.dtype}`);
    const out = new Int32Array(numel(t));
    this.download(t, out);
    return out;
  }

  /** The values of an f64 tensor. */
  toFloat64(t: Tensor): Float64Array {
    if (t.dtype !== "f64") throw new TypeError(`Cannot read doubles: tensor is ${t.dtype}`);
    const out = new Float64Array(numel(t));
    this.download(t, out);
    return out;
  }

  zero(t: Tensor): void {
    this.check("zero", this.symbols.graft_zero(t.ptr as never, bytesOf(t)));
  }

  copy(dst: Tensor, src: Tensor): void {
    if (dst.dtype !== src.dtype || bytesOf(dst) !== bytesOf(src)) {
      throw new RangeError(`Cannot copy ${src.dtype} [${src.shape}] to ${dst.dtype} [${dst.shape}]: sizes differ`);
    }
    this.check("copy", this.symbols.graft_copy(dst.ptr as never, src.ptr as never, bytesOf(dst)));
  }

  /** Converts between f32, bf16 and f16 element by element (nearest even). */
  convert(dst: Tensor, src: Tensor): void {
    if (numel(dst) !== numel(src))
      throw new RangeError(`Cannot convert [${src.shape}] to [${dst.shape}]: sizes differ`);
    const status = this.symbols.graft_convert(
      dst.ptr as never,
      src.ptr as never,
      dtypeCode(dst.dtype),
      dtypeCode(src.dtype),
      numel(dst),
    );
    this.check("convert", status);
  }

  /** Numbers uniform in [-scale, scale), made where they lie: the same for a seed in every library. For f32 and bf16. */
  fillRandom(dst: Tensor, seed: number, scale: number): void {
    const { ptr, dtype } = dst;
    const status = this.symbols.graft_fill_random(ptr as never, numel(dst), dtypeCode(dtype), seed | 0, scale);
    this.check("fillRandom", status);
  }

  /** Host memory that stays where it is; free with hostFree. */
  hostAlloc(bytes: number): number {
    const ptr = Number(this.symbols.graft_host_alloc(bytes));
    if (ptr === 0) throw new KernelError(`Cannot allocate ${bytes} bytes of host memory`);
    this.allocations.add("host", ptr);
    return ptr;
  }

  hostFree(ptr: number): void {
    this.allocations.remove("host", ptr);
    this.symbols.graft_host_free(ptr as never);
  }

  /** Turns a status into an exception that names the op. @throws KernelError when it is not 0, DeviceLostError where no other call can help. */
  check(op: string, status: number): void {
    if (status === 0) return;
    const why = this.lastError();
    if (status === STATUS_DEVICE && this.#isLost()) throw lost(why);
    throw new KernelError(`Cannot run ${op}: ${why}`, status === STATUS_OUT_OF_MEMORY ? { code: "out_of_memory" } : {});
  }

  /** A fault that concerns one call leaves the device able to describe itself. */
  #isLost(): boolean {
    return this.kind === "cuda" && this.symbols.graft_device_info(this.#staging as never, 65536) === STATUS_DEVICE;
  }

  lastError(): string {
    return String(this.symbols.graft_last_error());
  }
}

function lost(why: string): DeviceLostError {
  return new DeviceLostError(`The device is lost: ${why}`);
}

function dtypeOfArray(array: HostArray): DType {
  if (array instanceof Float32Array) return "f32";
  if (array instanceof Int32Array || array instanceof Uint32Array) return "i32";
  if (array instanceof Float64Array) return "f64";
  throw new TypeError(`Cannot tell the dtype of a ${array.constructor.name}: name it`);
}

/** Integers or floats in host memory that kernels copy from; `view` is written in place, `upload` sends the first `count`. */
export class Staging<A extends Int32Array | Float32Array> {
  readonly view: A;
  readonly tensor: Tensor;
  readonly #device: Device;
  readonly #host: number;

  /** `capacity` elements of host memory and a device tensor of the same size. */
  static int32(device: Device, capacity: number): Staging<Int32Array> {
    return new Staging(device, capacity, "i32", (buffer) => new Int32Array(buffer));
  }

  static float32(device: Device, capacity: number): Staging<Float32Array> {
    return new Staging(device, capacity, "f32", (buffer) => new Float32Array(buffer));
  }

  private constructor(device: Device, capacity: number, dtype: DType, make: (buffer: ArrayBuffer) => A) {
    this.#device = device;
    this.#host = device.hostAlloc(capacity * 4);
    this.view = make(toArrayBuffer(this.#host as never, 0, capacity * 4));
    this.tensor = device.empty([capacity], dtype);
  }

  /** Sends the first `count` elements and returns them as a tensor. */
  upload(count: number): Tensor {
    const { symbols } = this.#device;
    this.#device.check("upload", symbols.graft_upload(this.tensor.ptr as never, this.#host as never, count * 4));
    return { ptr: this.tensor.ptr, shape: [count], dtype: this.tensor.dtype };
  }

  /** Sends `count` elements from element `from` on. */
  uploadRange(from: number, count: number): void {
    const { symbols } = this.#device;
    const [to, at] = [this.tensor.ptr + 4 * from, this.#host + 4 * from];
    this.#device.check("upload", symbols.graft_upload(to as never, at as never, 4 * count));
  }

  /** Fetches the first `count` elements of `source` into `view`. */
  download(source: Tensor, count: number): void {
    const { symbols } = this.#device;
    this.#device.check("download", symbols.graft_download(this.#host as never, source.ptr as never, count * 4));
  }

  close(): void {
    this.#device.hostFree(this.#host);
    this.#device.free(this.tensor);
  }
}
