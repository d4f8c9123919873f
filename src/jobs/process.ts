// One job's operating-system process. Knows no rows.

import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";

/** A started process and how it will end. */
export interface JobProcess {
  readonly pid: number;
  /** Resolves, never rejects, with the manner of the end in words. */
  readonly exited: Promise<string>;
}

/**
 * Starts `command` in a session of its own (Ctrl-C on the server's terminal does not reach it), its output appended
 * to the file `log`.
 */
export function startJobProcess(command: readonly string[], log: string): JobProcess {
  const [program, ...args] = command;
  if (program === undefined) throw new TypeError("Cannot start a job: the command is empty");
  mkdirSync(dirname(log), { recursive: true });
  const output = openSync(log, "a");
  try {
    const child = spawn(program, args, { detached: true, stdio: ["ignore", output, output] });
    const exited = new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(`its process could not start: ${error.message}`));
      child.once("exit", (status, signal) =>
        resolve(signal === null ? `its process ended with status ${status}` : `its process was ended by ${signal}`),
      );
    });
    return { pid: child.pid ?? 0, exited };
  } finally {
    closeSync(output);
  }
}

/** Whether a process of this id exists. */
export function processIsAlive(pid: number): boolean {
  return pid > 0 && signalProcess(pid, 0);
}

/** Sends a signal; false when the process is already gone. */
export function signalProcess(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ESRCH") return false;
    throw error;
  }
}
