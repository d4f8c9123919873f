// graft doctor: what graft finds on this machine, and whether it can work here. The looking is in src/selftest.

import { examine, type Finding } from "../selftest/doctor.ts";
import { dataDir } from "../store/data_dir.ts";
import { defineCommand } from "./command.ts";
import { DATA_DIR_FLAG, JSON_FLAG } from "./config.ts";
import { KERNEL_FLAGS, kernelOptions } from "./kernel_flags.ts";
import { type Column, formatTable } from "./table.ts";
import { VERSION } from "./version.ts";

const COLUMNS: readonly Column<Finding>[] = [
  { title: "TOPIC", cell: (row) => row.topic },
  { title: "STATE", cell: (row) => (row.state === "problem" ? "PROBLEM" : row.state) },
  { title: "FOUND", cell: (row) => row.text },
];

export const doctorCommand = defineCommand(
  {
    name: "doctor",
    summary: "Shows what graft finds on this machine and whether it can work here",
    positionals: [],
    flags: {
      ...KERNEL_FLAGS,
      "data-dir": DATA_DIR_FLAG,
      json: JSON_FLAG,
    },
    details: "The exit status is 1 if there is a problem; a note is none. graft selftest goes on to check the kernels.",
    examples: ["graft doctor", "graft doctor --json"],
  },
  async ({ flags }) => {
    const { root } = dataDir(flags["data-dir"]);
    const findings = await examine({ version: VERSION, dataDir: root, kernels: kernelOptions(flags) });
    const healthy = findings.every((finding) => finding.state !== "problem");
    process.stdout.write(
      flags.json
        ? `${JSON.stringify({ healthy, findings }, null, 2)}\n`
        : formatTable(COLUMNS, findings, process.stdout),
    );
    return healthy ? 0 : 1;
  },
);
