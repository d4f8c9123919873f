// Checks bodies against the schemas of their routes. The framework's own check comes after it and finds nothing more: it
// would walk the whole of a wrong body and write it out, which for a large one takes seconds; one complaint is enough.

import { getSchemaValidator } from "elysia";
import { validationError } from "./errors.ts";
import type { SchemaIssue } from "./fields.ts";

/** A route with what it declares of its body. */
export interface CheckedRoute {
  readonly method: string;
  readonly path: string;
  readonly hooks: { readonly body?: unknown };
}

type Validator = ReturnType<typeof getSchemaValidator>;

/** Checks the bodies of `routes`, which are asked for when the first body comes. */
export class BodyCheck {
  readonly #routes: () => readonly CheckedRoute[];
  #validators: Map<string, Validator> | null = null;

  constructor(routes: () => readonly CheckedRoute[]) {
    this.#routes = routes;
  }

  /** @throws HttpError 400 naming the first field that is wrong */
  check(method: string, path: string, body: unknown): void {
    this.#validators ??= this.#compile();
    const validator = this.#validators.get(`${method} ${path}`);
    if (validator === undefined || validator.Check(body)) return;
    const first = validator.Errors(body).First() as SchemaIssue | undefined;
    throw validationError("body", first === undefined ? [] : [first]);
  }

  #compile(): Map<string, Validator> {
    const validators = new Map<string, Validator>();
    for (const { method, path, hooks } of this.#routes()) {
      if (typeof hooks.body !== "object" || hooks.body === null) continue;
      validators.set(`${method} ${path}`, getSchemaValidator(hooks.body as Parameters<typeof getSchemaValidator>[0]));
    }
    return validators;
  }
}
