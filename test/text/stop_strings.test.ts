import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StopStrings } from "../../src/text/stop_strings.ts";

function run(stops: string[], pieces: string[]): { text: string; stop: string | null } {
  const cutter = new StopStrings(stops);
  let text = "";
  for (const piece of pieces) {
    const result = cutter.push(piece);
    text += result.text;
    if (result.stop !== null) return { text, stop: result.stop };
  }
  return { text: text + cutter.flush(), stop: null };
}

describe("StopStrings", () => {
  test("holds back what may become a stop string and cuts exactly before it", () => {
    const cutter = new StopStrings(["\nUser:"]);
    expect(cutter.push("Hi\nUs")).toEqual({ text: "Hi", stop: null });
    expect(cutter.push("ual\nUser")).toEqual({ text: "\nUsual", stop: null });
    expect(cutter.push(": x")).toEqual({ text: "", stop: "\nUser:" });
    expect(cutter.push("more")).toEqual({ text: "", stop: "\nUser:" });
    expect(cutter.flush()).toBe("");
  });

  test("gives back held text at the end", () => {
    const cutter = new StopStrings(["abc"]);
    expect(cutter.push("xab").text).toBe("x");
    expect(cutter.flush()).toBe("ab");
  });

  test("refuses an empty stop string", () => {
    expect(() => new StopStrings([""])).toThrow(RangeError);
  });

  test("the result does not depend on how the text is cut, and is the first stop string to be complete", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 12 });
    const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 4 }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(stops, fc.array(letters, { maxLength: 5 }), (list, pieces) => {
        const whole = pieces.join("");
        let expected: { text: string; stop: string | null } = { text: whole, stop: null };
        for (let end = 1; end <= whole.length && expected.stop === null; end++) {
          const ending = list.filter((s) => whole.slice(0, end).endsWith(s)).sort((a, b) => b.length - a.length)[0];
          if (ending !== undefined) expected = { text: whole.slice(0, end - ending.length), stop: ending };
        }
        expect(run(list, pieces)).toEqual(expected);
        expect(run(list, [...whole])).toEqual(expected);
      }),
      { seed: 7, numRuns: 2000 },
    );
  });
});
