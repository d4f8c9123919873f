// What compiled grammars take and what they do not, text by text.
import { describe, expect, test } from "bun:test";
import { compileGrammar } from "../../src/grammar/compile.ts";
import { judge, refusal, schemaGrammar } from "./support.ts";

/** [schema, texts that match, texts that do not]. */
const SCHEMAS: Readonly<Record<string, readonly [unknown, readonly string[], readonly string[]]>> = {
  "any value": [
    true,
    ["1", '"a"', "null", '{"a":[1,{"b":-2.5e3}]}', "[]", "{}"],
    ["", "01", "nul", "[1,]", '{"a"}', "+1"],
  ],
  "types in a list": [{ type: ["string", "null"] }, ['""', "null"], ["1", "true"]],
  integer: [{ type: "integer" }, ["0", "-7", "1234567890123456789"], ["1.0", "01", "-", "12345678901234567890"]],
  "integer range": [
    { type: "integer", minimum: -12, exclusiveMaximum: 105 },
    ["-12", "-1", "0", "9", "99", "104"],
    ["-13", "-0", "105", "1000", "-100"],
  ],
  "integer range below zero": [{ type: "integer", maximum: -3, minimum: -40 }, ["-3", "-40"], ["-2", "-41", "3", "0"]],
  multiple: [
    { type: "integer", multipleOf: 7, minimum: 10, maximum: 800 },
    ["14", "700", "798"],
    ["7", "15", "805", "0"],
  ],
  cents: [{ type: "number", multipleOf: 0.25 }, ["0.25", "3", "1.5", "-2.75"], ["0.3", "0.125", "1."]],
  "number range": [
    { type: "number", exclusiveMinimum: 0.5, maximum: 2.25 },
    ["0.51", "1", "2.25", "2.0", "0.5000001", "2.2500"],
    ["0.5", "0.50", "2.251", "3", "0", "-1", "0.4999"],
  ],
  "tiny range": [{ type: "number", minimum: 1e-20, maximum: 2e-20 }, ["0.00000000000000000001"], ["0", "1", "0.1"]],
  lengths: [
    { type: "string", minLength: 2, maxLength: 3 },
    ['"ab"', '"😀é"', '"\\n\\u00e9\\ud83d\\ude00"'],
    ['"a"', '"abcd"', '"😀"'],
  ],
  pattern: [{ type: "string", pattern: "^a+\\d$|x" }, ['"aa1"', '"--x--"'], ['"aa"', '"a1b"', '"y"']],
  "pattern with lengths": [{ type: "string", pattern: "^[a-z]+$", maxLength: 2 }, ['"ab"'], ['"abc"', '""', '"A"']],
  "pattern with escapes": [
    { type: "string", pattern: '^["\\\\\\n]$' },
    ['"\\""', '"\\\\"', '"\\n"'],
    ['"""', '"n"', '"\\u000a"'],
  ],
  constants: [{ enum: ["a", 1, null, { b: [] }] }, ['"a"', "1", "null", '{"b":[]}'], ['"b"', "2", "{}"]],
  "a constant of the wrong type drops out": [{ type: "string", enum: ["a", 1] }, ['"a"'], ["1"]],
  object: [
    {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "boolean" }, c: { type: "null" } },
      required: ["b"],
    },
    ['{"b":true}', '{"a":1,"b":false}', '{"a":1,"b":true,"c":null}', '{\n  "a": 1,\n  "b": true\n}', '{ "b": true }'],
    ["{}", '{"a":1}', '{"b":true,"a":1}', '{"b":true,}', '{"b":true,"d":1}', '{"b":true,"b":true}'],
  ],
  "open object": [
    { type: "object", properties: { ab: { type: "integer" } }, additionalProperties: { type: "null" } },
    ["{}", '{"ab":1}', '{"x":null}', '{"ab":1,"a":null,"abc":null}'],
    ['{"ab":null}', '{"x":1}', '{"\\u0061b":null}', '{"x":null,"ab":1}'],
  ],
  "free object": [{ type: "object" }, ["{}", '{"x":[1]}'], ["[]", "{"]],
  "a required property that is not described": [
    { type: "object", required: ["z"] },
    ['{"z":1}', '{"z":{},"y":2}'],
    ["{}", '{"y":2}'],
  ],
  "counted properties": [
    { type: "object", additionalProperties: { type: "integer" }, minProperties: 1, maxProperties: 2 },
    ['{"a":1}', '{"a":1,"b":2}'],
    ["{}", '{"a":1,"b":2,"c":3}'],
  ],
  array: [
    { type: "array", items: { type: "integer" }, minItems: 1, maxItems: 3 },
    ["[1]", "[1,2,3]", "[\n 1, 2\n]"],
    ["[]", "[1,2,3,4]", "[1 2]"],
  ],
  "no items": [{ type: "array", maxItems: 0 }, ["[]", "[ ]"], ["[1]"]],
  places: [
    { type: "array", prefixItems: [{ type: "integer" }, { type: "string" }], items: { type: "null" }, minItems: 1 },
    ["[1]", '[1,"a"]', '[1,"a",null,null]'],
    ["[]", '["a"]', "[1,null]", '[1,"a",2]'],
  ],
  "places in their older form": [
    { type: "array", items: [{ type: "null" }], additionalItems: false },
    ["[]", "[null]"],
    ["[null,null]", "[1]"],
  ],
  "any of": [
    { anyOf: [{ type: "integer" }, { type: "object", properties: { a: { const: 1 } } }] },
    ["3", '{"a":1}', "{}"],
    ['{"a":2}', "null"],
  ],
  "any of beside keywords": [
    {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "integer" } },
      anyOf: [{ required: ["a"] }, { required: ["b"] }],
    },
    ['{"a":1}', '{"b":1}', '{"a":1,"b":2}'],
    ["{}"],
  ],
  "all of": [
    {
      allOf: [
        { type: "object", properties: { a: { type: "integer", minimum: 2 } }, required: ["a"] },
        { properties: { a: { maximum: 5 }, b: { type: "null" } }, required: ["b"] },
      ],
    },
    ['{"a":2,"b":null}', '{"a":5,"b":null}'],
    ['{"a":1,"b":null}', '{"a":6,"b":null}', '{"a":2}', '{"b":null}'],
  ],
  "reference beside keywords": [
    { $defs: { s: { type: "string", minLength: 1 } }, $ref: "#/$defs/s", maxLength: 2, description: "short" },
    ['"a"', '"ab"'],
    ['""', '"abc"', "1"],
  ],
  recursion: [
    {
      type: "object",
      properties: { v: { type: "integer" }, next: { anyOf: [{ $ref: "#" }, { type: "null" }] } },
      required: ["v", "next"],
    },
    ['{"v":1,"next":null}', '{"v":1,"next":{"v":2,"next":{"v":3,"next":null}}}'],
    ['{"v":1}', '{"v":1,"next":{"v":2}}'],
  ],
  "mutual recursion": [
    {
      $ref: "#/definitions/tree~1node",
      definitions: {
        "tree/node": { type: "object", properties: { kids: { $ref: "#/definitions/kids" } }, required: ["kids"] },
        kids: { type: "array", items: { $ref: "#/definitions/tree~1node" } },
      },
    },
    ['{"kids":[]}', '{"kids":[{"kids":[]},{"kids":[{"kids":[]}]}]}'],
    ['{"kids":[1]}', "[]"],
  ],
  "implied type": [
    { properties: { a: { minLength: 1 } }, required: ["a"] },
    ['{"a":"x"}'],
    ['{"a":""}', '{"a":1}', "1"],
  ],
  date: [
    { type: "string", format: "date" },
    ['"2024-02-29"', '"1999-12-31"', '"2000-02-29"'],
    ['"2023-02-29"', '"1900-02-29"', '"2024-13-01"', '"2024-4-1"'],
  ],
  "date and time": [
    { type: "string", format: "date-time" },
    ['"2024-02-29T23:59:59.123Z"', '"2024-01-01T00:00:00+01:00"'],
    ['"2024-01-01"', '"2024-01-01T24:00:00Z"'],
  ],
  uuid: [{ type: "string", format: "uuid" }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']],
  ipv4: [{ type: "string", format: "ipv4" }, ['"255.0.10.1"'], ['"256.0.0.1"', '"1.2.3"', '"01.2.3.4"']],
  ipv6: [
    { type: "string", format: "ipv6" },
    ['"::"', '"fe80::1"', '"1:2:3:4:5:6:7:8"', '"::ffff:1.2.3.4"', '"1::"'],
    ['"1::2::3"', '"1:2:3"', '":::"'],
  ],
  email: [{ type: "string", format: "email" }, ['"a.b@example.com"'], ['"a@"', '"@b"', '"a b@c"']],
  "a format nobody knows": [{ type: "string", format: "int64" }, ['"anything"'], ["1"]],
};

describe("JSON schemas", () => {
  for (const [name, [schema, good, bad]] of Object.entries(SCHEMAS)) {
    test(name, () => {
      const grammar = schemaGrammar(schema);
      for (const text of good) expect([text, judge(grammar, text)]).toEqual([text, "yes"]);
      for (const text of bad) expect([text, judge(grammar, text) === "yes"]).toEqual([text, false]);
    });
  }
});

test("white space is bounded everywhere", () => {
  const grammar = compileGrammar({ kind: "json_object" });
  for (const front of ["{", '{"a":', '{"a":1', '{"a":1,', '{"a":[', '{"a":[1']) {
    expect(judge(grammar, `${front}\n${" ".repeat(40)}`)).toBe("begins");
    for (const endless of ["  ", "\n\n", ` \n`, `\n${" ".repeat(41)}`])
      expect(judge(grammar, front + endless)).toBe("no");
  }
  expect(judge(grammar, " {")).toBe("no");
  expect(judge(grammar, "{} ")).toBe("no");
});

test("strings hold UTF-8 and whole surrogate pairs only", () => {
  const grammar = schemaGrammar({ type: "string" });
  const bytes = (...inside: number[]) => Uint8Array.of(0x22, ...inside, 0x22);
  for (const good of [
    [0xc3, 0xa9],
    [0xed, 0x9f, 0xbf],
    [0xf4, 0x8f, 0xbf, 0xbf],
  ])
    expect(judge(grammar, bytes(...good))).toBe("yes");
  const bad = [
    [0x80],
    [0xc0, 0x80],
    [0xc3],
    [0xed, 0xa0, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0xe0, 0x80, 0x80],
    [0x0a],
    [0xff],
  ];
  for (const one of bad) expect(judge(grammar, bytes(...one))).toBe("no");
  for (const text of ['"\\ud83d"', '"\\udc00"', '"\\ud83d\\u0041"', '"\\x"', '"\\u12"'])
    expect(judge(grammar, text)).toBe("no");
});

describe("regular expressions", () => {
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ["(ab|cd)+[0-9]{2,3}", ["ab12", "cdab123"], ["ab1", "12", "ab1234"]],
    ["^a.c$", ["abc", "a😀c"], ["a\nc", "abcc"]],
    ["[^\\W\\d]+?", ["abc_"], ["", "a1"]],
    ["\\u00e9\\x41\\u{1F600}\\t", ["éA😀\t"], ["eA"]],
    ["\\p{Lu}\\p{Script=Greek}*", ["Éαβ", "A"], ["éα"]],
    ["(?<name>x{0,2})(?:y|)", ["", "xxy", "y"], ["xxx", "yy"]],
    ["[\\]a-c-]+", ["]a-c"], ["d"]],
    ["a{,3}", ["a{,3}"], ["aaa"]],
    ["(a*)*b|(c?){3}", ["aaab", "b", "", "ccc"], ["a", "cccc"]],
  ];
  for (const [pattern, good, bad] of cases) {
    test(pattern, () => {
      const grammar = compileGrammar({ kind: "regex", pattern });
      for (const text of good) expect([text, judge(grammar, text)]).toEqual([text, "yes"]);
      for (const text of bad) expect([text, judge(grammar, text) === "yes"]).toEqual([text, false]);
    });
  }

  test("what is not supported is named", () => {
    const refused = ["a(?=b)", "(a)\\1", "a**", "(?i)a", "[z-a]", "(", ")", "a{3,1}", "\\p{Nope}", "\\bq", "[a", "*"];
    for (const pattern of refused) expect([pattern, refusal({ kind: "regex", pattern })]).not.toEqual([pattern, ""]);
    expect(refusal({ kind: "regex", pattern: "a(?=b)" })).toContain("look-around");
    expect(refusal({ kind: "regex", pattern: "(a)\\1" })).toContain("back-references");
  });
});

test("choices", () => {
  const grammar = compileGrammar({ kind: "choice", choices: ["yes", "yesterday", "né"] });
  expect(["yes", "yesterday", "né"].map((text) => judge(grammar, text))).toEqual(["yes", "yes", "yes"]);
  expect(["ye", "yest", ""].map((text) => judge(grammar, text))).toEqual(["begins", "begins", "begins"]);
  expect(["no", "yes "].map((text) => judge(grammar, text))).toEqual(["no", "no"]);
});

describe("tagged text", () => {
  const tags = ["get", "set"].map((name) => ({
    begin: `<call>{"name": "${name}", "arguments": `,
    schema: { type: "object", properties: { x: { type: "integer" } }, required: ["x"] },
    end: "}</call>",
    trigger: "<call>",
  }));
  const call = (name: string) => `<call>{"name": "${name}", "arguments": {"x": 1}}</call>`;

  test("free text with calls in it", () => {
    const grammar = compileGrammar({ kind: "tagged", tags, required: false, multiple: true });
    for (const text of ["", "plain é\n", "<cal", `a ${call("get")} b ${call("set")}`, "<<call"])
      expect(judge(grammar, text)).toBe("yes");
    expect(judge(grammar, "text <call>")).toBe("begins");
    for (const text of [`<call>{"name": "other"`, "<call>free", `<call>{"name": "get", "arguments": {}`, `<<call>x`]) {
      expect(judge(grammar, text)).toBe("no");
    }
  });

  test("one call ends the text", () => {
    const grammar = compileGrammar({ kind: "tagged", tags, required: false, multiple: false });
    expect(judge(grammar, `so: ${call("get")}`)).toBe("yes");
    expect(judge(grammar, `so: ${call("get")} `)).toBe("no");
  });

  test("a required call comes first", () => {
    const grammar = compileGrammar({ kind: "tagged", tags, required: true, multiple: true });
    expect(judge(grammar, call("set"))).toBe("yes");
    expect(judge(grammar, `${call("set")}\n${call("get")}`)).toBe("yes");
    expect([judge(grammar, ""), judge(grammar, "a"), judge(grammar, `${call("set")}a`)]).toEqual([
      "begins",
      "no",
      "no",
    ]);
  });

  test("without a trigger of its own, the whole beginning is one", () => {
    const grammar = compileGrammar({
      kind: "tagged",
      tags: [{ begin: "[[", schema: { type: "null" }, end: "]]" }],
      required: false,
      multiple: true,
    });
    expect([judge(grammar, "[a [[null]] ["), judge(grammar, "[[x")]).toEqual(["yes", "no"]);
  });
});
