// What a name of a task or a hybrid may look like, wherever it comes from: safe as part of a path and of `backbone:name`.

/** Names start with a letter or digit and hold letters, digits, ".", "_" and "-". */
export const NAME_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
export const NAME_EXPECTED = "letters, digits, '.', '_' and '-', starting with a letter or digit";
export const NAME_LENGTH = 128;

/** Whether `name` keeps to the rule. */
export function isName(name: string): boolean {
  return name.length <= NAME_LENGTH && new RegExp(NAME_PATTERN).test(name);
}
