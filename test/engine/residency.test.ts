// Which hybrids are in memory, against mixers that only count: nobody runs without its layers, no layer outstays its users,
// the limit holds, and everybody who waits is served.
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { LoadableMixer } from "../../models/attention/mixer.ts";
import { type Hybrid, makeHybrid } from "../../src/engine/hybrid.ts";
import { Residency, type Waiter } from "../../src/engine/residency.ts";
import { DeviceLostError } from "../../src/errors.ts";
import { Random } from "./random.ts";
import { toyMixer } from "./toy_backend.ts";

class ToyPart implements LoadableMixer {
  readonly kind = "gla";
  readonly content = null;
  readonly bytes: number;
  loaded = false;
  loads = 0;
  fail = false;
  lose = false;

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  async load(turn: () => Promise<void>): Promise<void> {
    if (this.loaded) return;
    await turn();
    if (this.fail) throw new Error("the disk is gone");
    if (this.lose) throw new DeviceLostError("The device is lost: here");
    this.loaded = true;
    this.loads++;
  }

  unload(): void {
    this.loaded = false;
  }

  forward(): void {}

  stateSpec() {
    return { kvBytesPerToken: { f32: 0, bf16: 0 }, recurrentFloats: { f32: 4, bf16: 4 }, convFloats: 0 };
  }

  weightBytes(): number {
    return this.loaded ? this.bytes : 0;
  }

  free(): void {}
}

let serial = 0;

function hybridOf(parts: readonly (ToyPart | null)[]): Hybrid {
  const mixers = parts.map((part) => part ?? toyMixer("full_attention", 0, 0));
  const layers = parts.map((part) => (part === null ? null : ("gla" as const)));
  return makeHybrid(`h${serial}`, serial++, layers, mixers, "f32");
}

interface Client extends Waiter {
  readonly hybrid: Hybrid;
  state: "waiting" | "ready" | "failed" | "gone";
  error: Error | null;
}

function client(hybrid: Hybrid): Client {
  const one: Client = {
    hybrid,
    state: "waiting",
    error: null,
    ready: () => {
      expect(one.state).toBe("waiting");
      one.state = "ready";
    },
    failed: (error) => {
      expect(one.state).toBe("waiting");
      one.state = "failed";
      one.error = error;
    },
  };
  return one;
}

/** Lets everything that can go on go on. */
async function settle(): Promise<void> {
  for (let i = 0; i < 40; i++) await Promise.resolve();
}

const forever = Number.POSITIVE_INFINITY;
const freely = async () => {};

describe("Residency", () => {
  test("several waiters share one load; layers that hybrids share are loaded once and stay for the other", async () => {
    const parts = [new ToyPart(10), new ToyPart(20), new ToyPart(30)] as const;
    const gone: string[] = [];
    const residency = new Residency(
      { maxBytes: forever, keepAliveMs: forever },
      { turn: freely, left: (identity) => gone.push(identity) },
    );
    const [a, b] = [hybridOf([parts[0], parts[1], null]), hybridOf([null, parts[1], parts[2]])];
    const clients = [client(a), client(a), client(b)];
    for (const one of clients) residency.hold(one.hybrid, one);
    expect(residency.residence(a).state).toBe("loading");
    expect(residency.residence(b).state).toBe("queued");
    await settle();
    expect(clients.map(({ state }) => state)).toEqual(["ready", "ready", "ready"]);
    expect(parts.map(({ loads }) => loads)).toEqual([1, 1, 1]);
    expect(residency.bytes).toBe(60);
    expect(residency.unload(a)).toBe(true);
    expect(residency.residence(a)).toMatchObject({ state: "unloading", loadedBytes: 30, totalBytes: 30 });
    for (const one of clients) residency.release(one.hybrid, one);
    expect(gone).toEqual([a.identity]);
    expect(residency.residence(a)).toMatchObject({ state: "unloaded", loadedBytes: 20 });
    expect(residency.bytes).toBe(50);
  });

  test("who comes while a hybrid is to leave keeps it", async () => {
    const hybrid = hybridOf([new ToyPart(5)]);
    const residency = new Residency({ maxBytes: forever, keepAliveMs: forever }, { turn: freely, left: () => {} });
    const [first, second] = [client(hybrid), client(hybrid)];
    residency.hold(hybrid, first);
    await settle();
    residency.unload(hybrid);
    residency.hold(hybrid, second);
    residency.release(hybrid, first);
    residency.release(hybrid, second);
    expect(residency.residence(hybrid)).toMatchObject({ state: "loaded", loadedBytes: 5 });
  });

  test("a device lost while a hybrid is loaded is told as that: the hybrid is not to blame", async () => {
    const part = new ToyPart(5);
    part.lose = true;
    const one = client(hybridOf([part]));
    const residency = new Residency({ maxBytes: forever, keepAliveMs: forever }, { turn: freely, left: () => {} });
    residency.hold(one.hybrid, one);
    await settle();
    expect(one.error).toBeInstanceOf(DeviceLostError);
  });

  test("a failure reaches everybody who waits, frees what was loaded, and the next try may succeed", async () => {
    const parts = [new ToyPart(5), new ToyPart(5)] as const;
    const hybrid = hybridOf(parts);
    const residency = new Residency({ maxBytes: forever, keepAliveMs: forever }, { turn: freely, left: () => {} });
    parts[1].fail = true;
    const clients = [client(hybrid), client(hybrid)];
    for (const one of clients) residency.hold(hybrid, one);
    await settle();
    expect(clients.map(({ error }) => error?.message)).toEqual(
      clients.map(() => `Cannot load hybrid "${hybrid.name}": the disk is gone`),
    );
    expect([residency.bytes, parts[0].loaded]).toEqual([0, false]);
    parts[1].fail = false;
    const again = client(hybrid);
    residency.hold(hybrid, again);
    await settle();
    expect(again.state).toBe("ready");
  });

  test("a hybrid at rest leaves after its time; at once with 0, never with Infinity", async () => {
    const hybrids = [40, 0, forever].map((keepAliveMs) => ({ keepAliveMs, hybrid: hybridOf([new ToyPart(1)]) }));
    const residency = new Residency({ maxBytes: forever, keepAliveMs: 1e6 }, { turn: freely, left: () => {} });
    for (const { hybrid, keepAliveMs } of hybrids) {
      const one = client(hybrid);
      residency.hold(hybrid, one);
      await settle();
      residency.keep(hybrid, keepAliveMs);
      residency.release(hybrid, one);
    }
    const states = () => hybrids.map(({ hybrid }) => residency.residence(hybrid).state);
    expect(states()).toEqual(["loaded", "unloaded", "loaded"]);
    expect(residency.residence(hybrids[0]!.hybrid).expiresAt).toBeGreaterThan(Date.now());
    expect(residency.residence(hybrids[2]!.hybrid).expiresAt).toBeNull();
    await Bun.sleep(80);
    expect(states()).toEqual(["unloaded", "unloaded", "loaded"]);
  });

  test("beyond the limit the least recently used leaves; one that can never fit is refused", async () => {
    const [a, b, c] = [hybridOf([new ToyPart(10)]), hybridOf([new ToyPart(10)]), hybridOf([new ToyPart(10)])];
    const residency = new Residency({ maxBytes: 20, keepAliveMs: forever }, { turn: freely, left: () => {} });
    for (const hybrid of [a, b, a, c]) {
      const one = client(hybrid);
      residency.hold(hybrid, one);
      await settle();
      expect(one.state).toBe("ready");
      await Bun.sleep(2);
      residency.release(hybrid, one);
    }
    expect([a, b, c].map((hybrid) => residency.residence(hybrid).state)).toEqual(["loaded", "unloaded", "loaded"]);
    const large = client(hybridOf([new ToyPart(21)]));
    residency.hold(large.hybrid, large);
    expect(large.error).toMatchObject({ name: "RequestError", code: "pool_memory" });
  });

  test("who waits for room is not overtaken by those who come later", async () => {
    const [a, b] = [hybridOf([new ToyPart(10)]), hybridOf([new ToyPart(10)])];
    const residency = new Residency({ maxBytes: 10, keepAliveMs: forever }, { turn: freely, left: () => {} });
    const [first, second, third] = [client(a), client(b), client(a)];
    residency.hold(a, first);
    await settle();
    residency.hold(b, second);
    residency.hold(a, third);
    await settle();
    expect([first, second, third].map(({ state }) => state)).toEqual(["ready", "waiting", "waiting"]);
    residency.release(a, first);
    await settle();
    expect([second, third].map(({ state }) => state)).toEqual(["ready", "waiting"]);
    residency.release(b, second);
    await settle();
    expect(third.state).toBe("ready");
  });

  test("under any load: layers are there for who runs, the limit holds, nobody waits for ever, nothing stays behind", async () => {
    const run = async (seed: number) => {
      const random = new Random(seed);
      const parts = Array.from({ length: 6 }, () => new ToyPart(random.between(1, 10)));
      const masks = Array.from({ length: 5 }, () => hybridOf(parts.map((part) => (random.chance(0.5) ? part : null))));
      const bytesOf = ({ mixers }: Hybrid) =>
        mixers.reduce((sum, mixer) => sum + (mixer instanceof ToyPart ? mixer.bytes : 0), 0);
      const maxBytes = Math.max(...masks.map(bytesOf)) + random.between(0, 20);
      const turns: (() => void)[] = [];
      const turn = () => new Promise<void>((resolve) => turns.push(resolve));
      const residency = new Residency(
        { maxBytes, keepAliveMs: random.chance(0.2) ? 0 : forever },
        { turn, left: () => {} },
      );
      const clients: Client[] = [];
      const check = () => {
        expect(parts.reduce((sum, part) => sum + part.weightBytes(), 0)).toBe(residency.bytes);
        expect(residency.bytes).toBeLessThanOrEqual(maxBytes);
        for (const { state, hybrid } of clients) {
          if (state !== "ready") continue;
          for (const mixer of hybrid.mixers) if (mixer instanceof ToyPart) expect(mixer.loaded).toBe(true);
        }
      };
      const end = (one: Client) => {
        if (one.state === "waiting" || one.state === "ready") one.state = "gone";
        residency.release(one.hybrid, one);
      };
      for (let i = 0; i < 60; i++) {
        const dice = random.next();
        if (dice < 0.4) {
          const one = client(random.pick(masks));
          clients.push(one);
          residency.hold(one.hybrid, one);
        } else if (dice < 0.65 && clients.length > 0) end(clients.splice(random.between(0, clients.length - 1), 1)[0]!);
        else if (dice < 0.72) residency.unload(random.pick(masks));
        else if (dice < 0.75) random.pick(parts).fail = random.chance(0.5);
        else turns.shift()?.();
        await settle();
        check();
      }
      for (const part of parts) part.fail = false;
      // Whoever runs ends at some time: then whoever waits must come to run.
      for (let i = 0; i < 400 && clients.length > 0; i++) {
        while (turns.length > 0) {
          turns.shift()!();
          await settle();
        }
        check();
        const ended = clients.findIndex(({ state }) => state !== "waiting");
        expect(ended).toBeGreaterThanOrEqual(0);
        end(clients.splice(ended, 1)[0]!);
        await settle();
      }
      expect(clients).toEqual([]);
      for (const hybrid of masks) residency.unload(hybrid);
      expect(residency.bytes).toBe(0);
      expect(parts.some((part) => part.loaded)).toBe(false);
    };
    await fc.assert(fc.asyncProperty(fc.integer(), run), { seed: 7, numRuns: 150 });
  });
});
