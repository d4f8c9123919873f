// The request bodies that the README shows must be ones the server takes.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { getSchemaValidator } from "elysia";
import { completionBody } from "../../src/server/completions/schema.ts";
import { searchBody } from "../../src/server/searches/schema.ts";

const readme = readFileSync(join(import.meta.dir, "../../README.md"), "utf8");

/** The JSON of the `-d '...'` that follows a route in the README. */
function bodyOf(route: string): unknown {
  const match = new RegExp(`${route} [^']*'content-type: application/json'[^']*-d '([^']+)'`).exec(readme);
  if (match === null) throw new Error(`The README shows no request to ${route}`);
  return JSON.parse(match[1]!);
}

test("the README's requests fit the routes' schemas", () => {
  expect(getSchemaValidator(searchBody).Check(bodyOf("/v1/searches"))).toBe(true);
  expect(getSchemaValidator(completionBody).Check(bodyOf("/v1/completions"))).toBe(true);
});
