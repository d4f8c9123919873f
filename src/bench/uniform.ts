// Which layers a count of replaced layers means: full attention stays spread evenly over the depth.

/** Per layer: whether it is replaced. Kept are floor((i + 1) L / K) - 1 for i < K = L - count. */
export function uniformReplacement(numLayers: number, count: number): boolean[] {
  const numKept = numLayers - count;
  const kept = new Set(Array.from({ length: numKept }, (_, i) => Math.floor(((i + 1) * numLayers) / numKept) - 1));
  return Array.from({ length: numLayers }, (_, layer) => !kept.has(layer));
}
