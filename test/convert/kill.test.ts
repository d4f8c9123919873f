import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { withTemporary } from "../support/checkpoints.ts";
import { runCli, startCli, waitFor } from "../support/cli.ts";
import { writeConvertFiles } from "./support.ts";

const NUM_KILLS = 3;

test(
  "graft convert killed with SIGKILL again and again ends with the bytes of an undisturbed run",
  () =>
    withTemporary(async (folder) => {
      const { model, data } = writeConvertFiles(folder);
      const command = (out: string) => [
        ..."convert --variant gdn,gla --heldout 0.1 --tokens 60k --row-length 40 --tokens-per-step 160".split(" "),
        ..."--checkpoint-every 0.02 --threads 1 --json".split(" "),
        ...["--data", data, "--data-dir", join(folder, "home"), "--out", join(folder, out), model],
      ];
      const newest = () =>
        existsSync(join(folder, "killed"))
          ? (readdirSync(join(folder, "killed"))
              .filter((name) => name.endsWith(".safetensors"))
              .sort()
              .at(-1) ?? "")
          : "";
      await runCli(command("whole"));
      for (let i = 0; i < NUM_KILLS; i++) {
        const before = newest();
        const running = startCli(command("killed"));
        expect(await waitFor(running, () => newest() > before)).toBe(true);
        await running.kill();
        expect(existsSync(join(folder, "killed", "gdn", "pool.json"))).toBe(false);
      }
      const report = JSON.parse(await runCli(command("killed"))) as { result: { resumedSteps: number } };
      expect(report.result.resumedSteps).toBeGreaterThan(0);
      for (const variant of ["gdn", "gla"]) {
        const read = (out: string) => readFileSync(join(folder, out, variant, "linear.safetensors"));
        expect(read("killed").equals(read("whole"))).toBe(true);
      }
      expect(newest()).toBe("");
    }),
  60_000,
);
