// The tokenizer as scoring wants it. Knows neither tasks nor models.
import type { Tokenizer } from "../text/tokenizer.ts";
import type { TaskEncoder } from "./requests.ts";

/** Wraps a model's tokenizer; null stays null (models that speak token ids only). */
export function taskEncoder(tokenizer: Tokenizer | null): TaskEncoder | null {
  if (tokenizer === null) return null;
  return {
    encode: (text, addSpecialTokens) => tokenizer.encode(text, addSpecialTokens ? "always" : "never"),
    decode: (ids) => tokenizer.decode(ids, { skipSpecial: false }),
    prefixId: tokenizer.bosId ?? tokenizer.eosId,
    addsSpecialTokens: tokenizer.encode("", "auto").length > 0,
  };
}
