// Lies in safetensors headers, in the index and in the set of tensors: each gets one line, before any kernel runs, and names
// what is wrong.
import { describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { withCheckpoint } from "../../models/load.ts";
import { type SafetensorsDType, type TensorToWrite, writeSafetensors } from "../../src/checkpoint/safetensors.ts";
import { CheckpointError } from "../../src/errors.ts";
import {
  type Config,
  randomTensors,
  tinyGpt2,
  tinyHybrid,
  tinyLlama,
  tinyQwen2,
  withTemporary,
  writeCheckpoint,
} from "../support/checkpoints.ts";

/** Checks everything that happens before a kernel; there are no Ops here at all. */
function open(directory: string): number {
  return withCheckpoint(directory, (_, tensors) => [...tensors.names()].length);
}

function expectRefusal(directory: string, words: string): void {
  let message = "nothing was refused";
  try {
    open(directory);
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    message = error.message;
  }
  expect(message).toContain(words);
  expect(message).not.toMatch(/[\n\r]/);
  expect(message.length).toBeLessThan(600);
}

/** Rewrites the JSON header of a weight file, keeping the data. */
function editHeader(path: string, edit: (header: Record<string, Entry>) => unknown): void {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<string, Entry>;
  const edited = edit(header) ?? header;
  const json = Buffer.from(typeof edited === "string" ? edited : JSON.stringify(edited));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([head, json, bytes.subarray(8 + length)]));
}

interface Entry {
  dtype: unknown;
  shape: unknown;
  data_offsets: unknown;
}

const NORM = "model.norm.weight";

/** The header with another description of one tensor. */
function withEntry(header: Record<string, Entry>, change: Partial<Entry>): Record<string, unknown> {
  return { ...header, [NORM]: { ...header[NORM], ...change } };
}

/** An index with another place for one tensor; undefined: none. */
function placing(map: Record<string, unknown>, name: string, shard: unknown): unknown {
  return { weight_map: { ...map, [name]: shard } };
}

const HEAD = "lm_head.weight";

function setLength(path: string, length: bigint): void {
  const bytes = readFileSync(path);
  bytes.writeBigUInt64LE(length);
  writeFileSync(path, bytes);
}

/** Words of the refusal, and what is done to model.safetensors. */
const files: [words: string, damage: (path: string) => void][] = [
  ["neither model.safetensors nor", (path) => rmSync(path)],
  ["pytorch_model.bin is not supported", (path) => renameSync(path, join(path, "..", "pytorch_model.bin"))],
  ["0 bytes", (path) => truncateSync(path, 0)],
  ["at least 8", (path) => truncateSync(path, 7)],
  ["header claims", (path) => truncateSync(path, 100)],
  ["file has", (path) => truncateSync(path, readFileSync(path).length - 1)],
  ["bytes follow", (path) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(4)]))],
  ["header claims", (path) => setLength(path, (1n << 64n) - 1n)],
  ["header claims", (path) => setLength(path, 1n << 40n)],
  ["header is not JSON", (path) => setLength(path, 0n)],
  ["header is not JSON", (path) => setLength(path, 40n)],
  ["header is not JSON", (path) => editHeader(path, () => '{"a\nb": ')],
  ["not a JSON object", (path) => editHeader(path, () => "[]")],
  ["not a JSON object", (path) => editHeader(path, () => "null")],
  ["names a tensor twice", (path) => editHeader(path, (h) => `${JSON.stringify(h).slice(0, -1)},"${NORM}":{}}`)],
  ["__metadata__", (path) => editHeader(path, (h) => ({ ...h, __metadata__: { a: 1 } }))],
  ["not described by an object", (path) => editHeader(path, (h) => ({ ...h, [NORM]: 7 }))],
  ['unknown dtype "F8"', (path) => editHeader(path, (h) => withEntry(h, { dtype: "F8" }))],
  ["unknown dtype", (path) => editHeader(path, (h) => withEntry(h, { dtype: "constructor" }))],
  ["unknown dtype", (path) => editHeader(path, (h) => withEntry(h, { dtype: undefined }))],
  ["bad shape", (path) => editHeader(path, (h) => withEntry(h, { shape: [-32] }))],
  ["bad shape", (path) => editHeader(path, (h) => withEntry(h, { shape: ["32"] }))],
  ["bad shape", (path) => editHeader(path, (h) => withEntry(h, { shape: new Array(20).fill(1) }))],
  ["impossible shape", (path) => editHeader(path, (h) => withEntry(h, { shape: [2 ** 40, 2 ** 40] }))],
  ["bad data_offsets", (path) => editHeader(path, (h) => withEntry(h, { data_offsets: [0] }))],
  ["bad data_offsets", (path) => editHeader(path, (h) => withEntry(h, { data_offsets: [-128, 0] }))],
  ["bytes of data", (path) => editHeader(path, (h) => withEntry(h, { data_offsets: [128, 0] }))],
  ["bytes of data", (path) => editHeader(path, (h) => withEntry(h, { data_offsets: [0, 2 ** 50] }))],
  ["ends at byte", (path) => editHeader(path, (h) => withEntry(h, { data_offsets: [2 ** 40, 2 ** 40 + 128] }))],
  ["overlaps", (path) => editHeader(path, (h) => withEntry(h, { data_offsets: [0, 128] }))],
  ["gap", (path) => editHeader(path, (h) => ({ ...h, [NORM]: undefined }))],
  [
    "directory",
    (path) => {
      rmSync(path);
      mkdirSync(path);
    },
  ],
];

describe("a damaged weight file is refused in one line:", () => {
  files.forEach(([words, damage], i) => {
    test(`${words} (case ${i})`, () =>
      withTemporary((directory) => {
        writeCheckpoint(directory, tinyLlama);
        damage(join(directory, "model.safetensors"));
        expectRefusal(directory, words);
      }));
  });
});

function replaced(tensors: TensorToWrite[], name: string, change: Partial<TensorToWrite>): TensorToWrite[] {
  return tensors.map((t) => (t.name === name ? { ...t, ...change } : t));
}

function zeros(name: string, shape: number[], dtype: SafetensorsDType = "F32"): TensorToWrite {
  const bytes = shape.reduce((a, b) => a * b, dtype === "F32" ? 4 : 8);
  return { name, shape, dtype, bytes: () => new Uint8Array(bytes) };
}

const withoutPrefix = (name: string) => (t: TensorToWrite) => !t.name.startsWith(name);

/** Words of the refusal, config, and the tensors stored for it. */
const sets: [words: string, config: Config, tensors: (all: TensorToWrite[]) => TensorToWrite[]][] = [
  [`"${NORM}": it is absent, expected shape [32]`, tinyLlama, (all) => all.filter((t) => t.name !== NORM)],
  [`"${HEAD}": it is absent`, tinyLlama, (all) => all.filter((t) => t.name !== HEAD)],
  [`"${HEAD}": shape is [32, 40], expected [40, 32]`, tinyLlama, (all) => replaced(all, HEAD, { shape: [32, 40] })],
  [`"${NORM}": shape is [32, 1]`, tinyLlama, (all) => replaced(all, NORM, { shape: [32, 1] })],
  [`"${NORM}": dtype is I32`, tinyLlama, (all) => replaced(all, NORM, { dtype: "I32" })],
  [`"${NORM}": dtype is F64`, tinyLlama, (all) => [...all.filter((t) => t.name !== NORM), zeros(NORM, [32], "F64")]],
  ['"model.extra": it is no part', tinyLlama, (all) => [...all, zeros("model.extra", [3])]],
  ['"a?b": it is no part', tinyLlama, (all) => [...all, zeros("a\nb", [3])]],
  ["layers.2", tinyLlama, (all) => [...all, zeros("model.layers.2.input_layernorm.weight", [32])]],
  ["q_proj.bias", tinyLlama, (all) => [...all, zeros("model.layers.0.self_attn.q_proj.bias", [32])]],
  ["q_proj.bias", tinyQwen2, (all) => all.filter((t) => !t.name.endsWith("0.self_attn.q_proj.bias"))],
  ["linear_attn", tinyLlama, (all) => [...all, zeros("model.layers.0.linear_attn.A_log", [4])]],
  ["same tensor as", tinyGpt2, (all) => [...all, zeros("wpe.weight", [64, 32])]],
  ["c_attn.weight", tinyGpt2, (all) => replaced(all, "transformer.h.0.attn.c_attn.weight", { shape: [96, 32] })],
  [
    "layer 1: it has model.layers.1.self_attn.* and model.layers.1.linear_attn.*",
    tinyHybrid,
    (all) => [...all, zeros("model.layers.1.self_attn.q_proj.weight", [32, 32])],
  ],
  ["no token mixer's", tinyHybrid, (all) => all.filter(withoutPrefix("model.layers.1.linear_attn."))],
  ["layer 0: it has no token mixer's", tinyHybrid, (all) => all.filter(withoutPrefix("model.layers.0.self_attn."))],
  [
    "layer 0: it has model.layers.0.self_attn.* tensors, expected model.layers.0.linear_attn.*",
    { ...tinyHybrid, layer_types: ["linear_attention", "linear_attention"] },
    () => randomTensors(tinyHybrid),
  ],
  ["o_norm", tinyHybrid, (all) => all.filter((t) => !t.name.endsWith("o_norm.weight"))],
];

describe("a wrong set of tensors is refused in one line:", () => {
  sets.forEach(([words, config, change], i) => {
    test(`${words} (case ${i})`, () =>
      withTemporary((directory) => {
        writeCheckpoint(directory, config, change(randomTensors(config)));
        expectRefusal(directory, words);
      }));
  });
});

/** Splits a checkpoint in two shards and writes the index after `edit`. */
function writeShards(directory: string, edit: (map: Record<string, unknown>) => unknown): void {
  const tensors = randomTensors(tinyLlama);
  const [a, b] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  writeFileSync(join(directory, "config.json"), JSON.stringify(tinyLlama));
  writeSafetensors(join(directory, a), tensors.slice(0, 5));
  writeSafetensors(join(directory, b), tensors.slice(5));
  const map = Object.fromEntries(tensors.map((t, i) => [t.name, i < 5 ? a : b] as const));
  const index = edit(map) ?? { metadata: {}, weight_map: map };
  const text = typeof index === "string" ? index : JSON.stringify(index);
  writeFileSync(join(directory, "model.safetensors.index.json"), text);
}

const indices: [words: string, edit: (map: Record<string, unknown>) => unknown][] = [
  ["is not JSON", () => "{"],
  ["expected an object", () => "[1]"],
  ["weight_map is absent", () => ({ metadata: {} })],
  ["weight_map is [1]", () => ({ weight_map: [1] })],
  ["expected the name of a .safetensors file", (map) => placing(map, NORM, "../model-00001-of-00002.safetensors")],
  ["expected the name of a .safetensors file", (map) => placing(map, NORM, "/etc/passwd")],
  ["expected the name of a .safetensors file", (map) => placing(map, NORM, ".hidden.safetensors")],
  ["expected the name of a .safetensors file", (map) => placing(map, NORM, "a/b.safetensors")],
  ["expected the name of a .safetensors file", (map) => placing(map, NORM, "a\n.safetensors")],
  ["expected the name of a .safetensors file", (map) => placing(map, NORM, 3)],
  ["no such file", (map) => placing(map, "ghost", "model-00003-of-00002.safetensors")],
  ["which lacks it", (map) => placing(map, "ghost", "model-00001-of-00002.safetensors")],
  ["places it in", (map) => placing(map, NORM, "model-00001-of-00002.safetensors")],
  ["does not list it", (map) => placing(map, NORM, undefined)],
];

describe("a wrong index is refused in one line:", () => {
  indices.forEach(([words, edit], i) => {
    test(`${words} (case ${i})`, () =>
      withTemporary((directory) => {
        writeShards(directory, edit);
        expectRefusal(directory, words);
      }));
  });

  test("a right one is accepted", () =>
    withTemporary((directory) => {
      writeShards(directory, () => undefined);
      expect(open(directory)).toBe(randomTensors(tinyLlama).length);
    }));
});

describe("a wrong config.json file is refused in one line:", () => {
  const cases: [words: string, content: string | null][] = [
    ["there is no such file", null],
    ["is not JSON", ""],
    ["is not JSON", '{"model_type": "llama",}'],
    ["expected an object", '"llama"'],
    ["expected an object", "null"],
    ["model_type is absent", "{}"],
  ];
  cases.forEach(([words, content], i) => {
    test(`${words} (case ${i})`, () =>
      withTemporary((directory) => {
        writeCheckpoint(directory, tinyLlama);
        const path = join(directory, "config.json");
        if (content === null) rmSync(path);
        else writeFileSync(path, content);
        expectRefusal(directory, words);
      }));
  });
});
