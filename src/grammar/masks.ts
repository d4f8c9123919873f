// Which tokens may come next: walks the tree of tokens along a machine. Masks are kept by configuration, within bounds.
import { type Configuration, DEAD, type GrammarMachine } from "./machine.ts";
import { containsPlainText } from "./plain_text.ts";
import type { TokenTree, TokenVocabulary } from "./vocabulary.ts";

/** Bytes of kept masks. */
const DEFAULT_CACHE_BYTES = 64 << 20;

/** Makes and keeps the masks of one vocabulary, for any number of machines. */
export class TokenMasks {
  readonly vocabulary: TokenVocabulary;
  readonly #limit: number;
  /** Least recently used first. */
  readonly #kept = new Map<Configuration, Uint32Array>();

  constructor(vocabulary: TokenVocabulary, cacheBytes = DEFAULT_CACHE_BYTES) {
    this.vocabulary = vocabulary;
    this.#limit = Math.max(1, Math.floor(cacheBytes / Math.max(1, 4 * vocabulary.maskWords)));
  }

  /** Ids whose bytes may follow in a configuration of the machine's present tables. Not to be changed. */
  of(machine: GrammarMachine, configuration: Configuration): Uint32Array {
    const known = this.#kept.get(configuration);
    if (known !== undefined) {
      this.#kept.delete(configuration);
      this.#kept.set(configuration, known);
      return known;
    }
    const mask = this.#make(machine, configuration);
    this.#kept.set(configuration, mask);
    if (this.#kept.size > this.#limit) this.#kept.delete(this.#kept.keys().next().value!);
    return mask;
  }

  #make(machine: GrammarMachine, configuration: Configuration): Uint32Array {
    const { plain, tree, twins, maskWords } = this.vocabulary;
    machine.beginWork();
    const usual = plain.find(({ maxChars }) => containsPlainText(machine, configuration.id, maxChars));
    const mask = usual === undefined ? new Uint32Array(maskWords) : usual.mask.slice();
    walk(usual?.others ?? tree, machine, configuration.id, mask);
    for (let i = 0; i < twins.length; i += 2) {
      const [first, other] = [twins[i]!, twins[i + 1]!];
      if ((mask[first >>> 5]! >>> (first & 31)) & 1) mask[other >>> 5]! |= 1 << (other & 31);
    }
    return mask;
  }
}

/** Sets the bits of all tokens of the tree that the machine takes from `start` on. */
function walk(tree: TokenTree, machine: GrammarMachine, start: number, mask: Uint32Array): void {
  const { byte, depth, skip, token, maxDepth } = tree;
  const { classOf, numClasses } = machine;
  const path = new Int32Array(maxDepth + 1);
  path[0] = start;
  let { table } = machine;
  for (let node = 0; node < byte.length; ) {
    const level = depth[node]!;
    const byteClass = classOf[byte[node]!]!;
    const from = path[level - 1]!;
    let next = table[from * numClasses + byteClass]!;
    if (next < DEAD) {
      next = machine.step(from, byteClass);
      table = machine.table;
    }
    if (next === DEAD) {
      node = skip[node]!;
      continue;
    }
    path[level] = next;
    const id = token[node]!;
    if (id >= 0) mask[id >>> 5]! |= 1 << (id & 31);
    node++;
  }
}
