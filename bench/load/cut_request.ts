// One HTTP request over a bare socket that is cut at a chosen byte, of the request or of the answer.

/** Where and how a connection is cut. */
export interface Cut {
  /** Bytes of the request to send; the whole of it where it has fewer. */
  readonly sendBytes: number;
  /** Bytes of the answer to wait for, once the whole request is sent. */
  readonly receiveBytes: number;
  /** By a reset rather than an orderly end. */
  readonly reset: boolean;
}

/** The bytes of a POST; `close` asks the server to end the connection with its answer. */
export function postBytes(url: string, path: string, body: unknown, close = false): Uint8Array {
  const payload = new TextEncoder().encode(JSON.stringify(body));
  const head =
    `POST ${path} HTTP/1.1\r\nhost: ${new URL(url).host}\r\ncontent-type: application/json\r\n` +
    `content-length: ${payload.length}\r\n${close ? "connection: close\r\n" : ""}\r\n`;
  return Buffer.concat([new TextEncoder().encode(head), payload]);
}

/** Sends, waits, cuts; answers the bytes received. Never waits longer than `limitMs` for the answer's bytes. */
export async function cutRequest(url: string, request: Uint8Array, cut: Cut, limitMs = 10_000): Promise<number> {
  const { hostname, port } = new URL(url);
  let received = 0;
  const whole = cut.sendBytes >= request.length;
  const enough = Promise.withResolvers<void>();
  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      data(_, chunk) {
        received += chunk.length;
        if (received >= cut.receiveBytes) enough.resolve();
      },
      close: () => enough.resolve(),
      error: () => enough.resolve(),
    },
  });
  await sendAll(socket, request.subarray(0, cut.sendBytes));
  if (whole && cut.receiveBytes > 0) {
    const timer = setTimeout(enough.resolve, limitMs);
    await enough.promise;
    clearTimeout(timer);
  }
  if (cut.reset) socket.terminate();
  else socket.end();
  return received;
}

async function sendAll(socket: { write(bytes: Uint8Array): number }, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length; ) {
    const count = socket.write(bytes.subarray(sent));
    if (count < 0) return;
    sent += count;
    if (sent < bytes.length) await Bun.sleep(1);
  }
}
