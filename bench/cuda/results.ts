// What a run has measured so far: a JSON file and a page beside it, written anew with every row. Knows no command.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { ChildEnd } from "./child.ts";
import { renderPage } from "./page.ts";

/** Where and when it was measured. */
export interface RunSetting {
  readonly device: string;
  readonly driver: string;
  readonly processor: string;
  readonly commit: string;
  readonly date: string;
}

export interface Section {
  readonly name: string;
  readonly command: string;
  readonly status: ChildEnd["status"] | "running" | "skipped";
  readonly seconds: number;
  readonly rows: readonly unknown[];
  readonly notes: string;
}

export interface Run {
  readonly setting: RunSetting;
  readonly sections: readonly Section[];
}

/** The file of a run. */
export class RunFile {
  readonly #path: string;
  #run: Run;

  /** @param path without extension */
  constructor(path: string, setting: RunSetting, known: readonly Section[]) {
    this.#path = path;
    this.#run = { setting, sections: known };
    mkdirSync(dirname(path), { recursive: true });
  }

  get run(): Run {
    return this.#run;
  }

  /** Puts a section in, or in place of the one of its name. */
  put(section: Section): void {
    const { setting, sections } = this.#run;
    const at = sections.findIndex(({ name }) => name === section.name);
    this.#run = { setting, sections: at < 0 ? [...sections, section] : sections.with(at, section) };
    write(`${this.#path}.json`, `${JSON.stringify(this.#run, null, 1)}\n`);
    write(`${this.#path}.md`, renderPage(this.#run));
  }
}

/** What an earlier run measured on the same commit and device. @throws where the file cannot be read */
export function earlierSections(path: string, setting: RunSetting): Section[] {
  const { setting: earlier, sections } = JSON.parse(readFileSync(path, "utf8")) as Run;
  if (earlier.commit !== setting.commit || earlier.device !== setting.device) {
    throw new Error(
      `${path} is of ${earlier.commit} on ${earlier.device}, this is ${setting.commit} on ${setting.device}`,
    );
  }
  return [...sections];
}

function write(path: string, text: string): void {
  writeFileSync(`${path}.tmp`, text);
  renameSync(`${path}.tmp`, path);
}
