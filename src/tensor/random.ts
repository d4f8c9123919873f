// Counter-based random numbers (Philox4x32-10): the value at an index depends on (seed, stream, index) alone, so that
// tensors can be drawn in any order and in parts. Knows nothing of what is drawn.

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** High 32 bits of the product of two unsigned 32-bit numbers. */
function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const low = (middle & 0xffff) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(low / 0x10000)) >>> 0;
}

/** 32-bit FNV-1a of a string: a stream number from a name. */
export function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ (name.charCodeAt(i) & 0xff), 0x01000193);
  }
  return hash >>> 0;
}

/** Random numbers of one (seed, stream). */
export class CounterRandom {
  readonly #seedLow: number;
  readonly #seedHigh: number;
  readonly #stream: number;
  readonly #words = new Uint32Array(4);

  /** @param seed a non-negative safe integer; @param stream a 32-bit number, see {@link streamOf}. */
  constructor(seed: number, stream = 0) {
    if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`Cannot seed random numbers: seed is ${seed}`);
    this.#seedLow = seed >>> 0;
    this.#seedHigh = Math.floor(seed / 0x100000000) >>> 0;
    this.#stream = stream >>> 0;
  }

  /** The four 32-bit words of block `index`; the array is reused by the next call. */
  words(index: number): Uint32Array {
    let c0 = index >>> 0;
    let c1 = Math.floor(index / 0x100000000) >>> 0;
    let c2 = this.#stream;
    let c3 = 0;
    let k0 = this.#seedLow;
    let k1 = this.#seedHigh;
    for (let round = 0; round < 10; round++) {
      const high0 = mulHigh(M0, c0);
      const high1 = mulHigh(M1, c2);
      const low0 = Math.imul(M0, c0) >>> 0;
      const low1 = Math.imul(M1, c2) >>> 0;
      c0 = (high1 ^ c1 ^ k0) >>> 0;
      c1 = low1;
      c2 = (high0 ^ c3 ^ k1) >>> 0;
      c3 = low0;
      k0 = (k0 + W0) >>> 0;
      k1 = (k1 + W1) >>> 0;
    }
    this.#words[0] = c0;
    this.#words[1] = c1;
    this.#words[2] = c2;
    this.#words[3] = c3;
    return this.#words;
  }

  /** Uniform in the open interval (0, 1): number `index` of the stream. */
  uniform(index: number): number {
    return (this.words(index)[0]! + 0.5) / 0x100000000;
  }

  /** n values of N(0, deviation²), by Box and Muller. */
  normals(n: number, deviation: number): Float32Array {
    const out = new Float32Array(n);
    for (let i = 0; i < n; i += 4) {
      const w = this.words(i / 4);
      for (let j = 0; j < 4 && i + j < n; j += 2) {
        const radius = deviation * Math.sqrt(-2 * Math.log((w[j]! + 0.5) / 0x100000000));
        const angle = (2 * Math.PI * w[j + 1]!) / 0x100000000;
        out[i + j] = radius * Math.cos(angle);
        if (i + j + 1 < n) out[i + j + 1] = radius * Math.sin(angle);
      }
    }
    return out;
  }
}
