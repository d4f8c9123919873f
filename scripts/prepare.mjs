// What a fresh clone needs before anything runs: packages, Bun, kernels; with --executable also dist/graft, and in it the
// CUDA kernels where nvcc is on the PATH and either there is a device or --cuda is given: they take a minute or two.
// Plain Node, because nothing else is there yet. Does nothing that is already done.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, "node_modules");

function stop(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

function run(command, args) {
  return spawnSync(command, args, { cwd: root, stdio: "inherit" }).status === 0;
}

function installPackages() {
  const lock = readFileSync(join(root, "package-lock.json"), "utf8");
  const stamp = join(modules, ".graft-lock");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lock) return;
  console.log("Installing packages");
  // Not `npm ci`: it refuses a lock file made where a registry has no packages of other platforms.
  if (!run("npm", ["install", "--no-save", "--no-audit", "--no-fund"]))
    stop("Cannot install the packages: see npm's message above");
  writeFileSync(stamp, lock);
}

function bunPath() {
  const bun = join(modules, ".bin", "bun");
  const works = () => spawnSync(bun, ["--version"]).status === 0;
  // Where npm was told not to run install scripts, Bun's own has to be run by hand.
  if (!works()) spawnSync(process.execPath, [join(modules, "bun", "install.js")], { cwd: join(modules, "bun") });
  if (!works()) stop("Cannot start Bun from node_modules: delete node_modules and try again");
  return bun;
}

if (process.platform !== "linux" || process.arch !== "x64") {
  stop(`Cannot build here: the kernels are for Linux on x64, this is ${process.platform} on ${process.arch}`);
}
installPackages();
const bun = bunPath();
if (spawnSync("g++", ["--version"]).status !== 0) {
  stop(
    "Cannot build the kernels: g++ is not installed. Install it (Debian: apt-get install g++), or copy a dist/graft " +
      "built elsewhere: it needs no compiler. The type check and the tests without kernels work as they are",
  );
}
// What is run needs the host's libraries; what is tested, the CUDA kernels in their emulator too.
const executable = process.argv.includes("--executable");
const cuda = executable && (process.argv.includes("--cuda") || existsSync("/dev/nvidiactl"));
const libraries = executable ? ["reference", "avx2", "avx512", "avx512_bf16"] : ["all"];
if (cuda) libraries.push("--optional-cuda");
if (!run(bun, ["kernels/build.ts", ...libraries])) stop("Cannot build the kernels: see the compiler's message above");
if (executable && !run(bun, ["scripts/build.ts"])) stop("Cannot build dist/graft");
