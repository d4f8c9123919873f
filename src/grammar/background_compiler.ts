// Compiles grammars without holding the caller's thread: in a worker, one after the other, within a time limit. What a
// text compiled to is kept, refusals included, so that a client who repeats a request does not pay again.
import { CapacityError, RequestError } from "../errors.ts";
import { workerUrl } from "../text/worker_url.ts";
import type { CompiledGrammar, GrammarSpec } from "./compile.ts";
import type { CompileReply, CompileRequest } from "./compile_worker.ts";

/** Longest compilation; the compiler itself gives up earlier. */
const LIMIT_MS = 1900;
const MAX_WAITING = 64;
/** Kept results, and their arrays' bytes together. */
const MAX_KEPT = 256;
const MAX_KEPT_BYTES = 64 << 20;

interface Job {
  readonly text: string;
  readonly resolve: (grammar: CompiledGrammar) => void;
  readonly reject: (error: Error) => void;
}

/** One worker, its queue and its results. */
export class BackgroundCompiler {
  readonly #limitMs: number;
  /** By text, least recently used first. */
  readonly #kept = new Map<string, Promise<CompiledGrammar>>();
  readonly #bytes = new Map<string, number>();
  #keptBytes = 0;
  readonly #queue: Job[] = [];
  #worker: Worker | null = null;
  #running: Job | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(limitMs = LIMIT_MS) {
    this.#limitMs = limitMs;
  }

  /** As compileGrammar(). @throws RequestError, CapacityError where too many wait */
  compile(spec: GrammarSpec): Promise<CompiledGrammar> {
    const text = textOf(spec);
    if (text === null)
      return Promise.reject(new RequestError("invalid_schema", "Cannot use the grammar: it is too deep"));
    const known = this.#kept.get(text);
    if (known !== undefined) {
      this.#kept.delete(text);
      this.#kept.set(text, known);
      return known;
    }
    if (this.#queue.length >= MAX_WAITING) {
      return Promise.reject(new CapacityError(`${MAX_WAITING} grammars wait to be compiled, try again later`));
    }
    const made = new Promise<CompiledGrammar>((resolve, reject) => this.#queue.push({ text, resolve, reject }));
    this.#keep(text, made);
    this.#next();
    return made;
  }

  /** Ends the worker; what is under way is rejected. */
  close(): void {
    const jobs = [...(this.#running === null ? [] : [this.#running]), ...this.#queue.splice(0)];
    this.#stop();
    for (const { reject } of jobs) reject(new Error("The grammar compiler has been closed"));
  }

  #keep(text: string, made: Promise<CompiledGrammar>): void {
    this.#kept.set(text, made);
    this.#count(text, text.length);
    made.then(
      (grammar) => this.#count(text, text.length + sizeOf(grammar)),
      (error) => {
        // Only what would be refused again is worth keeping.
        if (!(error instanceof RequestError)) this.#drop(text);
      },
    );
  }

  #count(text: string, bytes: number): void {
    if (!this.#kept.has(text)) return;
    this.#keptBytes += bytes - (this.#bytes.get(text) ?? 0);
    this.#bytes.set(text, bytes);
    while (this.#kept.size > MAX_KEPT || (this.#keptBytes > MAX_KEPT_BYTES && this.#kept.size > 1)) {
      this.#drop(this.#kept.keys().next().value!);
    }
  }

  #drop(text: string): void {
    this.#kept.delete(text);
    this.#keptBytes -= this.#bytes.get(text) ?? 0;
    this.#bytes.delete(text);
  }

  #next(): void {
    if (this.#running !== null) return;
    const job = this.#queue.shift();
    if (job === undefined) return;
    this.#running = job;
    this.#worker ??= this.#start();
    this.#timer = setTimeout(() => this.#late(), this.#limitMs);
    this.#worker.postMessage({ text: job.text } satisfies CompileRequest);
  }

  #start(): Worker {
    const worker = new Worker(workerUrl(import.meta.url, "compile_worker.ts", "grammar/compile_worker.ts"));
    worker.unref();
    worker.onmessage = ({ data }: MessageEvent<CompileReply>) => {
      const job = this.#finish();
      if (data.grammar !== null) job?.resolve(data.grammar);
      else job?.reject(data.refused ? new RequestError("invalid_schema", data.error) : new Error(data.error));
      this.#next();
    };
    worker.onerror = (event) => {
      if (this.#worker !== worker) return;
      this.#abandon(new Error(`The grammar compiler has stopped: ${event.message}`));
    };
    return worker;
  }

  #late(): void {
    this.#abandon(new RequestError("invalid_schema", "Cannot use the grammar: it takes too long to compile"));
  }

  /** A worker that does not come back is replaced. */
  #abandon(error: Error): void {
    const job = this.#running;
    this.#stop();
    job?.reject(error);
    this.#next();
  }

  #finish(): Job | null {
    const job = this.#running;
    this.#running = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    return job;
  }

  #stop(): void {
    this.#finish();
    this.#worker?.terminate();
    this.#worker = null;
  }
}

/** null where the spec is nested deeper than the stack. */
function textOf(spec: GrammarSpec): string | null {
  try {
    return JSON.stringify(spec);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function sizeOf(grammar: CompiledGrammar): number {
  return Object.values(grammar).reduce((sum, value) => sum + (ArrayBuffer.isView(value) ? value.byteLength : 0), 0);
}
