// graft serve as a child process on a free port, for tests that need a real socket, signals and kill -9.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");

/** What `graft serve --json` says at its start. */
export interface StartLine {
  readonly url: string;
  readonly model: string;
  readonly names: string[];
  readonly threads: number;
  readonly weight_bytes: number;
}

export interface ServeProcess extends StartLine {
  readonly pid: number;
  readonly exited: Promise<number>;
  /** Standard error so far. */
  errors(): string;
  signal(name: NodeJS.Signals): void;
}

/** A temporary data folder and the servers that were started on it. */
export class ServeSandbox {
  readonly root = mkdtempSync(join(tmpdir(), "graft-serve-"));
  readonly #children: ReturnType<typeof Bun.spawn>[] = [];

  /** Starts a command; nothing of the caller's GRAFT_* settings reaches it but the kernels to use. */
  spawn(args: readonly string[]) {
    const kept = Object.entries(process.env).filter(
      ([name]) => !name.startsWith("GRAFT_") || ["GRAFT_ISA", "GRAFT_DEVICE"].includes(name),
    );
    const child = Bun.spawn([process.execPath, main, ...args, "--data-dir", this.root], {
      env: { ...Object.fromEntries(kept), NO_COLOR: "1" },
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#children.push(child);
    return child;
  }

  /** Starts a server and waits for its start line. @throws with what it said instead */
  async serve(model: string, flags: readonly string[] = []): Promise<ServeProcess> {
    const child = this.spawn(["serve", model, "--port", "0", "--json", "--threads", "1", ...flags]);
    let errors = "";
    const collect = (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of child.stderr) errors += decoder.decode(chunk, { stream: true });
    })();
    const line = await firstLine(child.stdout);
    if (line === null) {
      await collect;
      throw new Error(`graft serve ended with ${await child.exited}: ${errors}`);
    }
    return {
      ...(JSON.parse(line) as StartLine),
      pid: child.pid,
      exited: child.exited,
      errors: () => errors,
      signal: (name) => child.kill(name),
    };
  }

  /** Ends what still runs and removes the folder. */
  async dispose(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all(this.#children.map((child) => child.exited));
    rmSync(this.root, { recursive: true, force: true });
  }
}

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string | null> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
  }
  return null;
}
