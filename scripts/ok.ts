// The gates beside the tests: types, lint and format of the TypeScript, format of the C++.
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dir);
const bin = (name: string) => join(root, "node_modules", ".bin", name);
const sources = (readdirSync(join(root, "kernels"), { recursive: true }) as string[])
  .filter((name) => /\.(cpp|h|cu|cuh)$/.test(name))
  .map((name) => join("kernels", name));

const gates: [string, string[]][] = [
  ["types", [bin("tsc"), "--noEmit", "-p", "."]],
  ["lint and format", [bin("biome"), "check", "--error-on-warnings", "."]],
  ["C++ format", [bin("clang-format"), "--dry-run", "--Werror", ...sources]],
];

let failed = 0;
for (const [name, command] of gates) {
  const child = Bun.spawn(command, { cwd: root, stdout: "inherit", stderr: "inherit" });
  const passed = (await child.exited) === 0;
  if (!passed) failed++;
  console.log(`${passed ? "ok    " : "FAILED"} ${name}`);
}
process.exit(failed === 0 ? 0 : 1);
