// Runs one command, hands on what it prints in JSON as soon as it is there, and stops it at its time. Knows no section.
import type { OutputForm } from "./sections.ts";

export interface ChildEnd {
  readonly status: "done" | "failed" | "stopped";
  readonly seconds: number;
  /** The end of what it wrote to standard error. */
  readonly notes: string;
}

/** Of a stopped process that does not go. */
const GRACE_MS = 5000;
const MOST_NOTES = 4000;

/**
 * @param take called with every JSON value that it prints
 * @param milliseconds after which it is stopped
 */
export async function runChild(
  command: readonly string[],
  { form, milliseconds, cwd }: { readonly form: OutputForm; readonly milliseconds: number; readonly cwd: string },
  take: (value: unknown) => void,
): Promise<ChildEnd> {
  const started = performance.now();
  // The executable that runs this file with BUN_BE_BUN must be graft again in its children.
  const { BUN_BE_BUN: _, ...env } = process.env;
  let child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  try {
    child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe", cwd, env });
  } catch (error) {
    return { status: "failed", seconds: 0, notes: (error as Error).message };
  }
  let stopped = false;
  const soft = setTimeout(() => {
    stopped = true;
    child.kill("SIGTERM");
  }, milliseconds);
  const hard = setTimeout(() => child.kill("SIGKILL"), milliseconds + GRACE_MS);
  const [notes, broken, exit] = await Promise.all([
    lastOf(child.stderr),
    form === "lines" ? takeLines(child.stdout, take) : takeDocument(child.stdout, take),
    child.exited,
  ]);
  clearTimeout(soft);
  clearTimeout(hard);
  const status = stopped ? "stopped" : exit === 0 && broken === null ? "done" : "failed";
  return {
    status,
    seconds: (performance.now() - started) / 1000,
    notes: broken === null ? notes : `${notes}${broken}\n`,
  };
}

/** Shows standard error while it comes, and keeps its end. */
async function lastOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    process.stderr.write(bytes);
    text = (text + decoder.decode(bytes, { stream: true })).slice(-MOST_NOTES);
  }
  return text;
}

/** What is wrong with the output, or null. */
async function takeLines(stream: ReadableStream<Uint8Array>, take: (value: unknown) => void): Promise<string | null> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      const problem = line === "" ? null : takeText(line, take);
      if (problem !== null) return problem;
    }
  }
  return null;
}

async function takeDocument(
  stream: ReadableStream<Uint8Array>,
  take: (value: unknown) => void,
): Promise<string | null> {
  const text = await new Response(stream).text();
  return text.trim() === "" ? "It printed nothing" : takeText(text, take);
}

function takeText(text: string, take: (value: unknown) => void): string | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return `It printed what is no JSON: ${text.slice(0, 200)}`;
  }
  take(value);
  return null;
}
