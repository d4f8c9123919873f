// The numbers that graft_fill_random() makes, on the host: for what is written to files. Knows no tensors.

/** The finaliser of MurmurHash3. */
function mix(h: number): number {
  let x = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** bfloat16 bits of a finite float32, nearest even. */
function bfloat16Bits(word: number): number {
  return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
}

/** Fills `out` with the bfloat16 numbers from place `first` on, uniform in [-scale, scale). Places are below 2^32. */
export function fillRandomBf16(out: Uint16Array, first: number, seed: number, scale: number): void {
  const key = mix(seed);
  const step = Math.fround(scale) / 2 ** 23;
  const float = new Float32Array(1);
  const word = new Uint32Array(float.buffer);
  for (let i = 0; i < out.length; i++) {
    const bits = mix(mix(Math.imul(first + i, 0x9e3779b1)) ^ key);
    float[0] = ((bits >>> 8) - 2 ** 23) * step;
    out[i] = bfloat16Bits(word[0]!);
  }
}
