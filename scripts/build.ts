// Writes dist/graft: one executable with the kernel libraries, migrations and the bundled model inside.
import { existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

const root = dirname(import.meta.dir);
const target = join(root, "dist", "graft");

/** Newest modification time below the folders that end up in the executable. */
function newest(paths: string[]): number {
  let time = 0;
  for (const path of paths) {
    const stat = statSync(path);
    time = Math.max(time, stat.mtimeMs);
    if (stat.isDirectory()) time = Math.max(time, newest(readdirSync(path).map((name) => join(path, name))));
  }
  return time;
}

const inputs = ["src", "models", "migrations", "package-lock.json", "scripts/build.ts"].map((path) => join(root, path));
// The emulator is not bundled.
const libraries = readdirSync(join(root, "build", "kernels")).filter(
  (name) => name.endsWith(".so") && name !== "libgraft_simt.so",
);
inputs.push(...libraries.map((name) => join(root, "build", "kernels", name)));

if (!existsSync(target) || statSync(target).mtimeMs < newest(inputs)) {
  mkdirSync(dirname(target), { recursive: true });
  const temporary = `${target}.${process.pid}.tmp`;
  const child = Bun.spawn(
    [
      process.execPath,
      "build",
      "--compile",
      "--minify-syntax",
      "--no-compile-autoload-bunfig",
      "--no-compile-autoload-dotenv",
      "src/main.ts",
      "src/engine/worker.ts",
      "src/text/encoder_worker.ts",
      "src/grammar/compile_worker.ts",
      "src/grammar/vocabulary_worker.ts",
      `--outfile=${temporary}`,
    ],
    { cwd: root, stdout: "ignore", stderr: "inherit" },
  );
  if ((await child.exited) !== 0) process.exit(1);
  renameSync(temporary, target);
}
console.log(`dist/graft: ${(statSync(target).size / 1e6).toFixed(0)} MB`);
