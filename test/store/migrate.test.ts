// The history of the schema: complete, recorded, and guarded against changed or unknown migrations.
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { migrate } from "../../src/store/migrate.ts";
import { migrations } from "../../src/store/migrations.ts";

const folder = join(import.meta.dir, "..", "..", "migrations");
const one = { name: "0001_one.sql", sql: "CREATE TABLE a (x INTEGER) STRICT;" };
const two = { name: "0002_two.sql", sql: "CREATE TABLE b (x INTEGER) STRICT; INSERT INTO b VALUES (5);" };

test("the embedded list is the folder, in order and byte for byte", () => {
  const files = readdirSync(folder).sort();
  expect(migrations.map(({ name }) => name)).toEqual(files);
  for (const { name, sql } of migrations) {
    expect(name).toMatch(/^\d{4}_[a-z0-9_]+\.sql$/);
    expect(sql).toBe(readFileSync(join(folder, name), "utf8"));
  }
});

test("what is missing is applied once, with name, hash and time", () => {
  const database = new Database(":memory:");
  expect(migrate(database, [one], () => 1000)).toEqual(["0001_one.sql"]);
  expect(migrate(database, [one, two], () => 2000)).toEqual(["0002_two.sql"]);
  expect(migrate(database, [one, two], () => 3000)).toEqual([]);
  expect(database.query("SELECT name, applied_at, length(sha256) AS hash FROM migrations").all()).toEqual([
    { name: "0001_one.sql", applied_at: 1000, hash: 64 },
    { name: "0002_two.sql", applied_at: 2000, hash: 64 },
  ]);
  expect(database.query("SELECT x FROM b").all()).toEqual([{ x: 5 }]);
});

test("a failing migration leaves nothing of itself", () => {
  const database = new Database(":memory:");
  const broken = { name: "0002_bad.sql", sql: "CREATE TABLE c (x INTEGER); INSERT INTO nowhere VALUES (1);" };
  expect(() => migrate(database, [one, broken])).toThrow("nowhere");
  expect(database.query("SELECT name FROM migrations").all()).toEqual([{ name: "0001_one.sql" }]);
  expect(database.query("SELECT name FROM sqlite_master WHERE name = 'c'").all()).toEqual([]);
});

test("a changed, unknown or missing applied migration stops the start in one line", () => {
  const start = (...list: (typeof one)[]) => {
    const database = new Database(":memory:");
    migrate(database, [one, two]);
    return () => migrate(database, list);
  };
  expect(start({ ...one, sql: `${one.sql} ` }, two)).toThrow(
    'Cannot use this data folder: migration "0001_one.sql" changed after it was applied; restore the original file',
  );
  expect(start(one)).toThrow('migration "0002_two.sql" was applied but is not known here');
  expect(start(two)).toThrow('migration "0001_one.sql" was applied but is not known here');
  expect(start(two, one)).toThrow("out of order");
});
