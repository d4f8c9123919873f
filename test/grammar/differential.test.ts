// Automata against the plain definition of what they stand for: regular expressions against the runtime's own, number
// ranges against arithmetic.
import { expect, test } from "bun:test";
import { compileGrammar } from "../../src/grammar/compile.ts";
import { DEAD, GrammarMachine } from "../../src/grammar/machine.ts";
import { judge, schemaGrammar } from "./support.ts";
import { randomFrom } from "./vocabularies.ts";

const CASES = Number(process.env.GRAFT_GRAMMAR_CASES ?? 60);
type Random = () => number;

function pick<T>(random: Random, list: readonly T[]): T {
  return list[Math.floor(random() * list.length)]!;
}

function randomRegex(random: Random, depth: number): string {
  const kind = depth === 0 ? 0 : random();
  if (kind < 0.3) return pick(random, ["a", "b", "é", ".", "[ab]", "[^a]", "\\d", "\\w", "\\S", "[é-😀]", "^", "$"]);
  const inner = () => randomRegex(random, depth - 1);
  if (kind < 0.6) return inner() + inner();
  if (kind < 0.75) return `(?:${inner()}|${inner()})`;
  return `(${inner()})${pick(random, ["*", "+", "?", "{2}", "{1,2}", "{0,1}?", "*?"])}`;
}

function randomText(random: Random): string {
  return Array.from({ length: Math.floor(random() * 6) }, () =>
    pick(random, ["a", "b", "é", "1", " ", "\n", "😀", "_"]),
  ).join("");
}

test("regular expressions match what the runtime's own do", () => {
  let matches = 0;
  for (let seed = 1; seed <= CASES; seed++) {
    const random = randomFrom(seed);
    const pattern = randomRegex(random, 4);
    const whole = new RegExp(`^(?:${pattern})$`, "u");
    const anywhere = new RegExp(pattern, "u");
    const texts = ["", ...Array.from({ length: 30 }, () => randomText(random))];
    const grammars = [
      () => compileGrammar({ kind: "regex", pattern }),
      () => schemaGrammar({ type: "string", pattern }),
    ];
    const expected = [(text: string) => whole.test(text), (text: string) => anywhere.test(text)];
    grammars.forEach((compile, i) => {
      let grammar: ReturnType<typeof compile> | null = null;
      try {
        grammar = compile();
      } catch (error) {
        // Such as "a^": nothing matches, which the grammar says at once.
        expect(String(error)).toContain("no finite text");
      }
      for (const text of texts) {
        const written = i === 0 ? text : JSON.stringify(text);
        const found = grammar !== null && judge(grammar, written) === "yes";
        if (found) matches++;
        expect([pattern, text, found]).toEqual([pattern, text, expected[i]!(text)]);
      }
    });
  }
  expect(matches).toBeGreaterThan(CASES);
}, 120_000);

test("integer ranges and multiples hold exactly their numbers", () => {
  for (let seed = 1; seed <= CASES / 2; seed++) {
    const random = randomFrom(seed);
    const size = pick(random, [20, 300, 5000]);
    const minimum = Math.floor((random() - 0.5) * size);
    const maximum = minimum + Math.floor(random() * size);
    const step = pick(random, [1, 1, 2, 7, 10, 60]);
    const isEmpty = Math.floor(maximum / step) < Math.ceil(minimum / step);
    if (isEmpty) continue;
    const machine = new GrammarMachine(
      schemaGrammar({ type: "integer", minimum, maximum, ...(step > 1 ? { multipleOf: step } : {}) }),
    );
    for (let i = 0; i < 200; i++) {
      const value = Math.floor(minimum - 20 + random() * (maximum - minimum + 40));
      const expected = value >= minimum && value <= maximum && value % step === 0;
      expect([minimum, maximum, step, value, takes(machine, String(value))]).toEqual([
        minimum,
        maximum,
        step,
        value,
        expected,
      ]);
    }
  }
});

test("number ranges hold exactly their numbers, with as many zeros behind as there is room for", () => {
  for (let seed = 1; seed <= CASES / 2; seed++) {
    const random = randomFrom(seed);
    const places = pick(random, [0, 1, 3]);
    const round = (value: number) => Number(value.toFixed(places));
    const low = round((random() - 0.5) * 50);
    const high = round(low + random() * 30) + 10 ** -places;
    const maximum = round(high);
    const bounds = random() < 0.5 ? { minimum: low, exclusiveMaximum: maximum } : { exclusiveMinimum: low, maximum };
    const machine = new GrammarMachine(schemaGrammar({ type: "number", ...bounds }));
    const values = [
      low,
      maximum,
      ...Array.from({ length: 60 }, () =>
        Number((low - 3 + random() * (maximum - low + 6)).toFixed(pick(random, [0, 1, 2, 4]))),
      ),
    ];
    for (const value of values) {
      const isAbove = "minimum" in bounds ? value >= low : value > low;
      const isBelow = "maximum" in bounds ? value <= maximum : value < maximum;
      // A minus in front of nothing is no number of a range.
      const text = Object.is(value, -0) ? "0" : String(value);
      for (const written of [text, text.includes(".") ? `${text}0` : `${text}.00`]) {
        const expected = isAbove && isBelow;
        const isZero = Number(written) === 0 && written.startsWith("-");
        if (!isZero) expect([bounds, written, takes(machine, written)]).toEqual([bounds, written, expected]);
      }
    }
  }
});

function takes(machine: GrammarMachine, text: string): boolean {
  let at = machine.start().id;
  for (const byte of Buffer.from(text)) {
    at = machine.step(at, machine.classOf[byte]!);
    if (at === DEAD) return false;
  }
  return machine.configuration(at).complete;
}
