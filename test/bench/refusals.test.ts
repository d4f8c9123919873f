// A run of several cases goes on where one has no figure, and ends as it must.
import { expect, spyOn, test } from "bun:test";
import { Refusals } from "../../src/cli/bench_refusals.ts";
import { CapacityError, DeviceLostError, KernelError } from "../../src/errors.ts";

const fail = (error: Error) => () => {
  throw error;
};

test("a case that does not fit is passed over, and one of wrong kernels is remembered", () => {
  const said: unknown[] = [];
  const spy = spyOn(process.stderr, "write").mockImplementation((text) => said.push(text) > 0);
  try {
    const refusals = new Refusals();
    expect(refusals.attempt("one", () => 7)).toBe(7);
    expect(refusals.attempt("two", fail(new CapacityError("needs more")))).toBeNull();
    expect(refusals.attempt("three", fail(new KernelError("no room", { code: "out_of_memory" })))).toBeNull();
    expect(refusals.status(1)).toBe(0);
    expect(() => refusals.status(0)).toThrow("needs more");
    expect(refusals.attempt("four", fail(new KernelError("other bits")))).toBeNull();
    expect(refusals.status(1)).toBe(1);
    expect(said[0]).toBe("No figure for two: needs more\n");
    expect(() => refusals.attempt("five", fail(new DeviceLostError("gone")))).toThrow("gone");
    expect(() => refusals.attempt("six", fail(new TypeError("a mistake")))).toThrow("a mistake");
  } finally {
    spy.mockRestore();
  }
});
