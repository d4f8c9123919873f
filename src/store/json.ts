// JSON columns: text in the database, typed values outside it.

/** A JSON object as stored in a *_json column. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** The text of a JSON column; numbers JSON cannot hold (NaN, infinities) become null. */
export function toJson(value: unknown): string {
  return JSON.stringify(value) ?? "null";
}

/**
 * The value of a JSON column. The caller names the type: only this program writes these columns.
 * @throws SyntaxError when the column was damaged
 */
export function fromJson<T>(text: string): T {
  return JSON.parse(text) as T;
}

/** Like fromJson, for a column that may be NULL. */
export function fromJsonOrNull<T>(text: string | null): T | null {
  return text === null ? null : fromJson<T>(text);
}
