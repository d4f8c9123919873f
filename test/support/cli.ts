// The command line as a child process, so that tests can really kill it.
import { join } from "node:path";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");

/** What a finished command left. */
export interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running command. */
export interface Running {
  /** Sends SIGKILL and waits for the end. */
  kill(): Promise<void>;
  readonly finished: Promise<Finished>;
  readonly ended: () => boolean;
}

/** Starts `graft ...args`; nothing of the caller's GRAFT_* settings reaches it but the kernels to use. */
export function startCli(args: readonly string[]): Running {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("GRAFT_") || ["GRAFT_ISA", "GRAFT_DEVICE"].includes(name),
  );
  const child = Bun.spawn([process.execPath, main, ...args], {
    env: Object.fromEntries(kept),
    stdout: "pipe",
    stderr: "pipe",
  });
  const finished = Promise.all([child.exited, child.stdout.text(), child.stderr.text()]).then(
    ([status, stdout, stderr]) => ({ status, stdout, stderr }),
  );
  return {
    finished,
    ended: () => child.exitCode !== null || child.signalCode !== null,
    async kill() {
      child.kill("SIGKILL");
      await finished;
    },
  };
}

/** Runs `graft ...args` to its end. @throws if it fails */
export async function runCli(args: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await startCli(args).finished;
  if (status !== 0) throw new Error(`graft ${args.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
}

/** Waits until `condition` holds or the command has ended; whether it held. */
export async function waitFor(running: Running, condition: () => boolean): Promise<boolean> {
  while (!running.ended()) {
    if (condition()) return true;
    await Bun.sleep(5);
  }
  return condition();
}
