import { expect, test } from "bun:test";
import { join } from "node:path";
import { BackgroundEncoder } from "../../src/text/background_encoder.ts";
import { Tokenizer } from "../../src/text/tokenizer.ts";
import { dataDir, skipReason } from "./support.ts";

const directory = join(dataDir, "tiny1m");

test.skipIf(skipReason(directory))(
  "BackgroundEncoder gives the tokenizer's ids and leaves the thread free",
  async () => {
    const tokenizer = Tokenizer.load(directory)!;
    const encoder = new BackgroundEncoder(tokenizer, directory);
    const long = "Once upon a time there was a girl. ".repeat(1000);
    expect(await encoder.encode("Once upon a time")).toEqual(tokenizer.encode("Once upon a time"));
    expect(await encoder.encode(long, "never")).toEqual(tokenizer.encode(long, "never"));

    // While a megabyte is under way, this thread's timers go on.
    let longestGapMs = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longestGapMs = Math.max(longestGapMs, performance.now() - last);
      last = performance.now();
    }, 5);
    const started = last;
    const ids = await encoder.encode("a".repeat(1e6));
    const totalMs = performance.now() - started;
    clearInterval(timer);
    expect(ids.length).toBe(1_000_001);
    expect(longestGapMs).toBeLessThan(totalMs / 2);
    encoder.close();
  },
);

test.skipIf(skipReason(directory))("BackgroundEncoder.close() rejects what is under way", async () => {
  const encoder = new BackgroundEncoder(Tokenizer.load(directory)!, directory);
  const under = encoder.encode("b".repeat(1e6)).catch((error: Error) => error.message);
  encoder.close();
  expect(await under).toBe("The encoder has been closed");
});
