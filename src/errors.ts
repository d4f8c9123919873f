// The error classes that callers act on. Everything else is a RangeError, TypeError or SyntaxError.

/** Something the person who asked can put right; `code` is stable and machine-readable. */
abstract class GraftError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

/** A request, flag or task file that cannot be honoured as written. */
export class RequestError extends GraftError {}

/** A checkpoint, pool or configuration that cannot be used. */
export class CheckpointError extends GraftError {
  constructor(message: string, options?: ErrorOptions) {
    super("invalid_checkpoint", message, options);
  }
}

/** A kernel refused its arguments or failed. */
export class KernelError extends GraftError {
  constructor(message: string, options?: ErrorOptions & { readonly code?: "device_lost" | "out_of_memory" }) {
    super(options?.code ?? "kernel_error", message, options);
  }
}

/** The device the kernels run on does not answer any more; nothing in this process brings it back. */
export class DeviceLostError extends KernelError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, { ...options, code: "device_lost" });
  }
}

/** A bounded queue or pool is full; the caller may try again later. */
export class CapacityError extends GraftError {
  constructor(message: string, options?: ErrorOptions) {
    super("capacity", message, options);
  }
}

/** The engine was lost while it worked, or is not there now. */
export class EngineLostError extends GraftError {
  constructor(code: "engine_restarted" | "engine_restarting" | "engine_dead", message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}
