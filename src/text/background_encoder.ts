// Encodes texts without holding the caller's thread for long: short ones at once, long ones in a worker that is started
// when the first one comes. A megabyte of one character takes seconds, and the thread that answers HTTP has other streams.
import type { EncodeReply, EncodeRequest } from "./encoder_worker.ts";
import type { SpecialTokens, Tokenizer } from "./tokenizer.ts";
import { workerUrl } from "./worker_url.ts";

/** Texts up to this long take a few milliseconds, whatever they hold. */
const INLINE_CHARS = 8192;

interface Pending {
  readonly resolve: (ids: number[]) => void;
  readonly reject: (error: Error) => void;
}

/** One tokenizer and, once needed, its worker. */
export class BackgroundEncoder {
  readonly #tokenizer: Tokenizer;
  readonly #directory: string;
  readonly #pending = new Map<number, Pending>();
  #worker: Worker | null = null;
  #nextId = 1;

  /** @param directory where `tokenizer` was loaded from; the worker loads its own copy */
  constructor(tokenizer: Tokenizer, directory: string) {
    this.#tokenizer = tokenizer;
    this.#directory = directory;
  }

  /** The same ids as tokenizer.encode(). */
  async encode(text: string, special: SpecialTokens = "auto"): Promise<number[]> {
    if (text.length <= INLINE_CHARS) return this.#tokenizer.encode(text, special);
    this.#worker ??= this.#start();
    const id = this.#nextId++;
    const request: EncodeRequest = { id, directory: this.#directory, text, special };
    this.#worker.postMessage(request);
    return await new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
  }

  /** Ends the worker; encodings under way are rejected. */
  close(): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#failAll(new Error("The encoder has been closed"));
  }

  #start(): Worker {
    const worker = new Worker(workerUrl(import.meta.url, "encoder_worker.ts", "text/encoder_worker.ts"));
    worker.unref();
    worker.onmessage = ({ data }: MessageEvent<EncodeReply>) => {
      const pending = this.#pending.get(data.id);
      this.#pending.delete(data.id);
      if (data.ids === null) pending?.reject(new Error(data.error));
      else pending?.resolve(Array.from(data.ids));
    };
    worker.onerror = (event) => {
      if (this.#worker === worker) this.#worker = null;
      this.#failAll(new Error(`The encoder has stopped: ${event.message}`));
    };
    return worker;
  }

  #failAll(error: Error): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}
