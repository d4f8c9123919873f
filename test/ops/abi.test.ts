import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ABI_VERSION, symbols } from "../../src/ops/abi.ts";

const source = readFileSync(join(import.meta.dir, "../../kernels/include/graft.h"), "utf8");
const header = source.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/^#.*$/gm, "");

/** "int32_t N" -> "i32"; every pointer is "ptr". */
function ffiType(declaration: string): string {
  if (declaration.includes("*")) return "ptr";
  const known: Record<string, string> = { int32_t: "i32", uint64_t: "u64", float: "f32", double: "f64", void: "void" };
  const type = known[declaration.trim().split(/\s+/)[0]!];
  if (type === undefined) throw new Error(`Unknown C type in "${declaration}"`);
  return type;
}

function prototypes() {
  const found: Record<string, { args: string[]; returns: string }> = {};
  for (const [, returns, name, args] of header.matchAll(
    /GRAFT_EXPORT\s+((?:const\s+)?\w+[\s*]*?)(graft_\w+)\(([^)]*)\)/g,
  )) {
    const list = args!.trim() === "void" ? [] : args!.split(",").map(ffiType);
    found[name!] = { args: list, returns: /const char\s*\*/.test(returns!) ? "cstring" : ffiType(returns!) };
  }
  return found;
}

test("symbols equal the prototypes of graft.h, name by name and type by type", () => {
  const expected = prototypes();
  expect(Object.keys(expected).length).toBeGreaterThan(70);
  expect(JSON.parse(JSON.stringify(symbols))).toEqual(expected);
});

test("ABI_VERSION is the header's", () => {
  expect(/^#define GRAFT_ABI_VERSION (\d+)$/m.exec(source)?.[1]).toBe(String(ABI_VERSION));
});
