// Requests written byte by byte on a raw socket, for what no HTTP client would send.
import { connect, type Socket } from "node:net";

/** A connection to a server that is read only as far as the test wants. */
export class RawSocket {
  readonly socket: Socket;
  text = "";
  closed = false;

  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.socket.on("error", () => {});
    this.socket.on("close", () => {
      this.closed = true;
    });
  }

  /** Takes everything that comes. */
  read(): this {
    this.socket.on("data", (chunk) => {
      this.text += chunk.toString("latin1");
    });
    return this;
  }

  write(text: string | Uint8Array): this {
    this.socket.write(text);
    return this;
  }

  /** A whole JSON request. */
  post(path: string, body: unknown, headers: readonly string[] = []): this {
    const json = JSON.stringify(body);
    const head = [
      `POST ${path} HTTP/1.1`,
      "Host: localhost",
      "Content-Type: application/json",
      `Content-Length: ${Buffer.byteLength(json)}`,
      ...headers,
    ];
    return this.write(`${head.join("\r\n")}\r\n\r\n${json}`);
  }

  /** Statuses of the answers so far. */
  get statuses(): number[] {
    return [...this.text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => Number(match[1]));
  }

  destroy(): void {
    this.socket.destroy();
  }
}

/** Waits for a condition that another process brings about. @throws when it takes longer than `limitMs` */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 10_000,
): Promise<number> {
  const start = performance.now();
  while (!(await condition())) {
    if (performance.now() - start > limitMs) throw new Error(`Waited ${limitMs} ms until ${what}`);
    await Bun.sleep(2);
  }
  return performance.now() - start;
}
