// A server of this same program as a child process, for measuring it from outside. Ends with whoever started it.
import { selfCommand } from "../jobs/self.ts";

/** A running server. */
export interface ServedChild {
  readonly url: string;
  readonly pid: number;
  /** SIGTERM, then waits for its end. */
  stop(): Promise<void>;
}

/** Starts `graft serve ...words` on a free port and waits until it answers. @throws Error with what it said instead */
export async function serveChild(words: readonly string[]): Promise<ServedChild> {
  const child = Bun.spawn([...selfCommand(), "serve", ...words, "--port", "0", "--json"], {
    env: { ...process.env, NO_COLOR: "1", GRAFT_API_KEY: "", GRAFT_API_KEY_FILE: "" },
    stdout: "pipe",
    stderr: "pipe",
  });
  const errors = new Response(child.stderr).text();
  const kill = () => child.kill("SIGTERM");
  const leave = () => process.exit(1);
  process.once("exit", kill);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, leave);
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of child.stdout) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end < 0) continue;
    const { url } = JSON.parse(text.slice(0, end)) as { url: string };
    return {
      url,
      pid: child.pid,
      async stop() {
        kill();
        await child.exited;
        process.off("exit", kill);
        for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, leave);
      },
    };
  }
  const said = (await errors).trim().replace(/^error: /, "");
  throw new Error(said === "" ? `graft serve has ended with status ${await child.exited}` : said);
}
