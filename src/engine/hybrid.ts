// A hybrid as the engine runs it: one token mixer per layer, and what a sequence of it needs of the memory pools.
// Knows no sequence and no batch.
import type { TokenMixer, Variant } from "../../models/attention/mixer.ts";
import type { StateDtype } from "../ops/ops.ts";
import type { HybridInfo, Residence } from "./types.ts";

/** State slots begin on cache lines. */
const ALIGN_FLOATS = 16;

/** Memory of one sequence in one linear layer: a recurrent region, then a convolution region, both in one slot. */
export interface StateSlotShape {
  /** Floats from one slot of this kind to the next. */
  readonly floats: number;
  /** Where the convolution region begins inside the slot. */
  readonly convOffset: number;
  readonly convFloats: number;
}

/** A mask over the backbone, resolved to mixers. */
export interface Hybrid {
  readonly name: string;
  /** Orders and tells apart registered hybrids, also two of one name after a redirection. */
  readonly serial: number;
  /** Equal for hybrids whose layers run the very same mixers, whatever their names: these may share computed prefixes. */
  readonly identity: string;
  readonly layers: readonly (Variant | null)[];
  readonly mixers: readonly TokenMixer[];
  /** Number of full-attention layers; each takes its own KV pages. */
  readonly numFull: number;
  /** Per layer: its index among the full-attention layers, or -1. */
  readonly kvOrdinal: readonly number[];
  /** Per layer: its index among the linear layers, or -1. */
  readonly stateOrdinal: readonly number[];
  /** One entry per linear layer, in layer order. */
  readonly slots: readonly StateSlotShape[];
  /** Floats of all slots, and those of them that hold convolution windows. */
  readonly slotFloats: number;
  readonly convFloats: number;
}

/** The slot of one linear mixer whose recurrent states are of that type. */
export function slotShape(mixer: TokenMixer, dtype: StateDtype): StateSlotShape {
  const { recurrentFloats, convFloats } = mixer.stateSpec();
  const convOffset = roundUp(recurrentFloats[dtype]);
  return { floats: convOffset + roundUp(convFloats), convOffset, convFloats };
}

/** Resolves what a sequence of this hybrid needs; mixers has one entry per layer. */
export function makeHybrid(
  name: string,
  serial: number,
  layers: readonly (Variant | null)[],
  mixers: readonly TokenMixer[],
  stateDtype: StateDtype,
): Hybrid {
  const kvOrdinal: number[] = [];
  const stateOrdinal: number[] = [];
  const slots: StateSlotShape[] = [];
  let numFull = 0;
  for (const mixer of mixers) {
    const full = mixer.kind === "full_attention";
    kvOrdinal.push(full ? numFull++ : -1);
    stateOrdinal.push(full ? -1 : slots.length);
    if (!full) slots.push(slotShape(mixer, stateDtype));
  }
  const identity = identityOf(mixers);
  const slotFloats = slots.reduce((sum, { floats }) => sum + floats, 0);
  const convFloats = slots.reduce((sum, { floats, convOffset }) => sum + floats - convOffset, 0);
  return {
    name,
    serial,
    identity,
    layers,
    mixers,
    numFull,
    kvOrdinal,
    stateOrdinal,
    slots,
    slotFloats,
    convFloats,
  };
}

const mixerIds = new WeakMap<TokenMixer, number>();
let lastMixerId = 0;

/** A mixer loaded anew counts as another one: its weights may differ. */
function identityOf(mixers: readonly TokenMixer[]): string {
  const ids = mixers.map((mixer) => {
    const id = mixerIds.get(mixer) ?? ++lastMixerId;
    mixerIds.set(mixer, id);
    return id;
  });
  return ids.join();
}

/** @param kvBytes bytes of k and v of one token in one full-attention layer. */
export function hybridInfo(hybrid: Hybrid, kvBytes: number, residence: Residence): HybridInfo {
  return {
    name: hybrid.name,
    layers: hybrid.layers,
    numLinear: hybrid.slots.length,
    kvBytesPerToken: hybrid.numFull * kvBytes,
    stateBytes: 4 * hybrid.slotFloats,
    residence,
  };
}

function roundUp(floats: number): number {
  return Math.ceil(floats / ALIGN_FLOATS) * ALIGN_FLOATS;
}
