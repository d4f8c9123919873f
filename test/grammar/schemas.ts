// Random JSON schemas with random values that match them, for property tests. Everything follows from the generator.
type Random = () => number;

/** A schema and a source of values that match it; values list properties in the schema's order. */
export interface SchemaCase {
  readonly schema: unknown;
  value(random: Random): unknown;
}

const NAMES = ["a", "b", "name", "long_name", "é", 'q"t', "ab"];
const CHARS = ["a", "b", "Z", " ", '"', "\\", "\n", "é", "的", "😀", "/", "\u0001"];
/** Patterns beside a way to write texts that match. */
const PATTERNS: readonly (readonly [string, (random: Random) => string])[] = [
  ["^[a-c]{2,4}$", (random) => text(random, ["a", "b", "c"], 2, 4)],
  ["^(foo|bar)+\\d?$", (random) => pick(random, ["foo", "barfoo", "foo7"])],
  ["x", (random) => `${text(random, ["a", '"'], 0, 3)}x${text(random, ["é"], 0, 2)}`],
  ['^[^\\s"]*$', (random) => text(random, ["a", "é", "\\", "😀"], 0, 4)],
];

function below(random: Random, count: number): number {
  return Math.floor(random() * count);
}

function pick<T>(random: Random, list: readonly T[]): T {
  return list[below(random, list.length)]!;
}

function text(random: Random, chars: readonly string[], min: number, max: number): string {
  return Array.from({ length: min + below(random, max - min + 1) }, () => pick(random, chars)).join("");
}

/** A random schema. Some refer to themselves through "#/$defs/node". */
export function randomSchema(random: Random, depth = 3): SchemaCase {
  const inner = oneOfKinds(random, depth);
  if (random() >= 0.25) return inner;
  const leaf = scalar(random);
  const node = {
    type: "object",
    properties: { v: leaf.schema, next: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] } },
    required: ["v", "next"],
    additionalProperties: false,
  };
  const value = (at: Random): unknown => ({ v: leaf.value(at), next: at() < 0.5 ? value(at) : null });
  return {
    schema: {
      $defs: { node },
      type: "object",
      properties: { tree: { $ref: "#/$defs/node" }, other: inner.schema },
      required: ["tree"],
    },
    value: (at) => ({ tree: value(at), ...(at() < 0.5 ? { other: inner.value(at) } : {}) }),
  };
}

function oneOfKinds(random: Random, depth: number): SchemaCase {
  const kind = depth === 0 ? 0 : random();
  if (kind < 0.35) return scalar(random);
  if (kind < 0.65) return object(random, depth);
  if (kind < 0.82) return array(random, depth);
  if (kind < 0.92) return either(random, depth);
  return both(random, depth);
}

function scalar(random: Random): SchemaCase {
  return pick(random, [integer, number, string, pattern, constants, simple, simple])(random);
}

function simple(random: Random): SchemaCase {
  const type = pick(random, ["null", "boolean", "string", "integer", "number"]);
  const values: Record<string, (at: Random) => unknown> = {
    null: () => null,
    boolean: (at) => at() < 0.5,
    string: (at) => text(at, CHARS, 0, 6),
    integer: (at) => below(at, 2000) - 1000,
    number: (at) => pick(at, [0, -1.5, 1e21, 2.5e-7, 123456.789]),
  };
  return { schema: { type }, value: values[type]! };
}

function integer(random: Random): SchemaCase {
  const minimum = below(random, 4000) - 2000;
  const span = below(random, 3000);
  const multipleOf = random() < 0.4 ? 1 + below(random, 12) : 1;
  const first = Math.ceil(minimum / multipleOf) * multipleOf;
  const maximum = Math.max(first, minimum + span);
  const count = Math.floor((maximum - first) / multipleOf) + 1;
  return {
    schema: { type: "integer", minimum, maximum, ...(multipleOf > 1 ? { multipleOf } : {}) },
    // Not -0, which is written as 0 and is another value to strict eyes.
    value: (at) => first + multipleOf * below(at, count) + 0,
  };
}

function number(random: Random): SchemaCase {
  const low = (below(random, 4000) - 2000) / 8;
  const high = low + (1 + below(random, 999)) / 16;
  const open = random() < 0.5;
  return {
    schema: { type: "number", [open ? "exclusiveMinimum" : "minimum"]: low, maximum: high },
    value: (at) => (at() < 0.2 ? high : low + (high - low) * pick(at, [0.25, 0.5, 0.75])),
  };
}

function string(random: Random): SchemaCase {
  const minLength = below(random, 4);
  const maxLength = minLength + below(random, 6);
  return { schema: { type: "string", minLength, maxLength }, value: (at) => text(at, CHARS, minLength, maxLength) };
}

function pattern(random: Random): SchemaCase {
  const [source, value] = pick(random, PATTERNS);
  return { schema: { type: "string", pattern: source }, value };
}

function constants(random: Random): SchemaCase {
  const values = Array.from({ length: 1 + below(random, 4) }, () =>
    pick(random, ["x", "xy", "é\n", 3, null, true, [1, "a"], { k: 1 }]),
  );
  return { schema: { enum: values }, value: (at) => pick(at, values) };
}

function object(random: Random, depth: number): SchemaCase {
  const names = NAMES.filter(() => random() < 0.5);
  const members = names.map((name) => ({ name, isRequired: random() < 0.5, ...oneOfKinds(random, depth - 1) }));
  const further = random() < 0.3 ? oneOfKinds(random, depth - 1) : null;
  return {
    schema: {
      type: "object",
      properties: Object.fromEntries(members.map(({ name, schema }) => [name, schema])),
      required: members.filter((one) => one.isRequired).map((one) => one.name),
      additionalProperties: further?.schema ?? false,
    },
    value(at) {
      const entries = members.filter((one) => one.isRequired || at() < 0.5).map((one) => [one.name, one.value(at)]);
      const more =
        further === null
          ? []
          : ["other", "abc", "\u0002"].filter(() => at() < 0.3).map((name) => [name, further.value(at)]);
      return Object.fromEntries([...entries, ...more]);
    },
  };
}

function array(random: Random, depth: number): SchemaCase {
  const given = Array.from({ length: random() < 0.3 ? 1 + below(random, 2) : 0 }, () => oneOfKinds(random, depth - 1));
  const item = oneOfKinds(random, depth - 1);
  const minItems = below(random, 3);
  const maxItems = minItems + below(random, 4);
  return {
    schema: {
      type: "array",
      ...(given.length > 0 ? { prefixItems: given.map((one) => one.schema) } : {}),
      items: item.schema,
      minItems,
      maxItems,
    },
    value: (at) =>
      Array.from({ length: minItems + below(at, maxItems - minItems + 1) }, (_, i) => (given[i] ?? item).value(at)),
  };
}

function either(random: Random, depth: number): SchemaCase {
  const parts = Array.from({ length: 1 + below(random, 3) }, () => oneOfKinds(random, depth - 1));
  return { schema: { anyOf: parts.map((one) => one.schema) }, value: (at) => pick(at, parts).value(at) };
}

function both(random: Random, depth: number): SchemaCase {
  const [left, right] = [oneOfKinds(random, depth - 1), oneOfKinds(random, depth - 1)];
  const part = (name: string, schema: unknown) => ({
    type: "object",
    properties: { [name]: schema },
    required: [name],
  });
  return {
    schema: { allOf: [part("left", left.schema), part("right", right.schema)] },
    value: (at) => ({ left: left.value(at), right: right.value(at) }),
  };
}
