// The self-test: it passes on every library, calls every symbol of the ABI, and notices a kernel that is a little wrong.
import { expect, test } from "bun:test";
import { type KernelLibrary, symbols } from "../../src/ops/abi.ts";
import { Ops } from "../../src/ops/ops.ts";
import { largeCases } from "../../src/selftest/large_cases.ts";
import { casesFor, selftest, selftestCases } from "../../src/selftest/selftest.ts";
import { heal, loseAfter } from "../support/emulator.ts";
import { isas, opsOf } from "../support/kernels.ts";

/** Fresh ops whose symbols are replaced where `change` says so. */
async function altered(change: (name: string, call: (...args: never[]) => unknown) => typeof call): Promise<Ops> {
  const ops = await Ops.load({ isa: isas.at(-1)!, threads: 1 });
  const own = ops.symbols as unknown as Record<string, (...args: never[]) => unknown>;
  const replaced = Object.fromEntries(Object.keys(symbols).map((name) => [name, change(name, own[name]!)]));
  Object.defineProperty(ops, "symbols", { value: replaced as unknown as KernelLibrary });
  return ops;
}

test.each([...isas.filter((isa) => isa !== "reference"), "simt"] as const)(
  "selftest() passes on %s",
  async (library) => {
    const ops = await opsOf(library);
    const results = [...selftest(ops, await opsOf("reference"))];
    expect(results.length).toBe(casesFor(ops).length);
    expect(results.filter((result) => !result.passed)).toEqual([]);
    expect(results.every((result) => result.error !== null && result.detail !== "")).toBe(true);
  },
);

test("selftest() calls every kernel", async () => {
  const called = new Set<string>();
  const ops = await altered((name, call) => (...args) => {
    called.add(name);
    return call(...args);
  });
  expect([...selftest(ops, await opsOf("reference"))].every((result) => result.passed)).toBe(true);
  const others = [
    "graft_abi_version", // library.ts
    "graft_last_error",
    "graft_init",
    "graft_device_info", // graft doctor
    "graft_host_alloc", // taken by the constructor
    "graft_host_free",
    "graft_record_end", // where the library records: test/simt/repeat.test.ts
    "graft_replay",
    "graft_recording_free",
    "graft_bench_read", // graft bench
    "graft_bench_flops",
  ];
  expect(Object.keys(symbols).filter((name) => !called.has(name) && !others.includes(name))).toEqual([]);
});

test("selftest() reports a kernel that is off by a thousandth, one that does nothing and one that fails", async () => {
  const ops = await altered((name, call) => {
    if (name === "graft_rope") return () => 0;
    if (name === "graft_sample") return () => 1;
    if (name !== "graft_axpy") return call;
    return (...args) => call(...(args.map((arg, i) => (i === 3 ? Number(arg) * 1.001 : arg)) as never[]));
  });
  const failed = [...selftest(ops, await opsOf("reference"))].filter((result) => !result.passed);
  expect(failed.map((result) => [result.name.split(",")[0], result.detail.split(":")[0]])).toEqual([
    ["embedding_backward", "axpy"],
    ["rope_table", "forward"],
    ["record", "Cannot run sample"],
    ["sample", "Cannot run sample"],
  ]);
  expect(failed[0]!.error).toBeGreaterThan(1e-5);
  expect(failed[0]!.error).toBeLessThan(1e-2);
  expect(failed[1]!.error).toBe(Number.POSITIVE_INFINITY);
  expect(failed[2]!.error).toBeNull();
});

test("a device has every case but those of training, and the large ones where it is no emulator", async () => {
  const [cpu, emulator] = [await opsOf("reference"), await opsOf("simt")];
  const cuda = Object.create(emulator, { isa: { value: "cuda" }, kind: { value: "cuda" } }) as Ops;
  expect(casesFor(cpu)).toBe(selftestCases);
  expect(casesFor(emulator)).toEqual(selftestCases.filter(({ training }) => training !== true));
  expect(casesFor(cuda)).toEqual([...casesFor(emulator), ...largeCases]);
  expect(largeCases.every(({ large }) => large)).toBe(true);
  expect(new Set(casesFor(cuda).map(({ name }) => name)).size).toBe(casesFor(cuda).length);
});

test("a device without its device fails every case with the reason", async () => {
  const ops = await opsOf("simt");
  loseAfter(1);
  try {
    const [first, second] = [...selftest(ops, await opsOf("reference"), casesFor(ops).slice(1, 3))];
    for (const result of [first, second]) {
      expect(result).toMatchObject({
        passed: false,
        error: null,
        detail: expect.stringMatching(/^The device is lost: /),
      });
    }
  } finally {
    heal();
  }
});
