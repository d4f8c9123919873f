// How the memory of an engine is divided, once and before it serves: by shares of the machine for the processor, by what a
// device has left for a device. Pure arithmetic; allocates and measures nothing.
import { RequestError } from "../errors.ts";
import type { DeviceMemoryInfo } from "./types.ts";

const GIB = 2 ** 30;

/** What an engine wants memory for. Sizes in bytes. */
export interface MemoryNeeds {
  readonly maxContext: number;
  /** Whether that was asked for; else it gives way. */
  readonly contextAsked: boolean;
  readonly maxSequences: number;
  readonly pageSize: number;
  /** One page of one full-attention layer, k and v. */
  readonly pageBytes: number;
  /** Full-attention layers of the checkpoint. */
  readonly numFull: number;
  readonly numLayers: number;
  /** States of one sequence: of the checkpoint itself, and where every layer is replaced; Infinity where that is not known. */
  readonly stateBytes: number;
  readonly plausibleStateBytes: number;
  /** What was asked for; absent: by this plan. */
  readonly asked: { readonly kvBytes?: number; readonly stateBytes?: number; readonly poolBytes?: number };
}

/** What a device has for them. */
export interface DeviceRoom {
  /** Memory of the device, what of it was free before anything was loaded, and the part of that to use. */
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly fraction: number;
  /** Taken already: the checkpoint's weights, and whatever the driver keeps beside them. */
  readonly weightBytes: number;
  /** What the largest steps need beside pages and states. */
  readonly workspaceBytes: number;
}

/** How it was divided. */
export interface MemoryPlan {
  readonly kvBytes: number;
  readonly stateBytes: number;
  /** Of the hybrids' counterparts; Infinity: no limit. */
  readonly poolBytes: number;
  /** At most what was wanted. */
  readonly maxContext: number;
  /** null where no device's memory was divided. */
  readonly room: DeviceRoom | null;
}

/** The plan of a device as an engine tells it. */
export function memoryInfo({ kvBytes, stateBytes, poolBytes, room }: MemoryPlan): DeviceMemoryInfo {
  return { ...room!, kvBytes, stateBytes, poolBytes };
}

/** For the processor: enough for every place to hold a whole context, within shares of the machine; untouched memory costs nothing. */
export function planByMachine(needs: MemoryNeeds, machineBytes: number): MemoryPlan {
  const { asked, maxContext, stateBytes: one } = needs;
  return {
    kvBytes: asked.kvBytes ?? Math.min(allContexts(needs), machineBytes / 8, 2 * GIB),
    stateBytes: asked.stateBytes ?? Math.max(one, Math.min(wantedStates(needs), machineBytes / 16, GIB)),
    poolBytes: asked.poolBytes ?? Number.POSITIVE_INFINITY,
    maxContext,
    room: null,
  };
}

/**
 * For a device: counterparts and states get what they plausibly need, pages the rest, as far as there is a use for it.
 * @throws RequestError "device_memory" with what would fit
 */
export function planByRoom(needs: MemoryNeeds, room: DeviceRoom): MemoryPlan {
  const { asked, stateBytes: one } = needs;
  const usable = Math.floor(room.freeBytes * room.fraction) - room.weightBytes - room.workspaceBytes;
  if (usable <= 0) {
    refuse(`there is no room beside the weights and the workspace of a step (${account(room)}): take a smaller model`);
  }
  const poolBytes = asked.poolBytes ?? Math.floor(Math.min(room.weightBytes, usable / 4));
  const afterPools = usable - poolBytes - tableBytes(needs);
  const stateBytes = asked.stateBytes ?? Math.max(one, Math.min(wantedStates(needs), Math.floor(afterPools / 2)));
  const left = afterPools - stateBytes;
  if (left < 0 || (asked.kvBytes ?? 0) > left) {
    const wanted = asked.kvBytes === undefined ? "" : ` beside ${size(asked.kvBytes)} of KV pages`;
    refuse(
      `${size(poolBytes)} of counterparts, ${size(tableBytes(needs))} of page table and ${size(stateBytes)} of states${wanted} ` +
        `do not fit into ${size(usable)} (${account(room)})`,
    );
  }
  const kvBytes = asked.kvBytes ?? Math.min(allContexts(needs), left);
  const plan = { kvBytes, stateBytes, poolBytes, room };
  checkSequences(needs, plan, room);
  return { ...plan, maxContext: fittingContext(needs, kvBytes, room) };
}

/** Each place needs its states, and a page in every layer. */
function checkSequences(needs: MemoryNeeds, plan: { kvBytes: number; stateBytes: number }, room: DeviceRoom): void {
  const { maxSequences, numFull, pageBytes, stateBytes: one } = needs;
  const byPages = numFull === 0 ? maxSequences : Math.floor(plan.kvBytes / (numFull * pageBytes));
  const byStates = one === 0 ? maxSequences : Math.floor(plan.stateBytes / one);
  const most = Math.min(byPages, byStates);
  if (most >= maxSequences) return;
  refuse(
    most < 1
      ? `not one sequence fits into ${size(plan.kvBytes)} of KV pages and ${size(plan.stateBytes)} of states (${account(room)})`
      : `${maxSequences} sequences at once do not fit into ${size(plan.kvBytes)} of KV pages and ${size(plan.stateBytes)} of ` +
          `states (${account(room)}): at most --max-sequences ${most}`,
  );
}

/** The longest context that one sequence can have. */
function fittingContext(needs: MemoryNeeds, kvBytes: number, room: DeviceRoom): number {
  const { maxContext, numFull, pageBytes, pageSize } = needs;
  if (numFull === 0) return maxContext;
  const most = Math.floor(kvBytes / (numFull * pageBytes)) * pageSize;
  if (most >= maxContext) return maxContext;
  if (!needs.contextAsked) return most;
  return refuse(
    `a context of ${maxContext} tokens takes ${size(blocks(needs) * numFull * pageBytes)} of KV pages, there are ` +
      `${size(kvBytes)} (${account(room)}): at most --max-context ${most}`,
  );
}

function blocks({ maxContext, pageSize }: MemoryNeeds): number {
  return Math.ceil(maxContext / pageSize);
}

function allContexts(needs: MemoryNeeds): number {
  return needs.maxSequences * needs.numFull * blocks(needs) * needs.pageBytes;
}

/** Room for the states of all sequences, and for as many kept for later requests. */
function wantedStates({ maxSequences, stateBytes, plausibleStateBytes }: MemoryNeeds): number {
  return Math.max(2 * maxSequences * plausibleStateBytes, 2 * stateBytes);
}

function tableBytes(needs: MemoryNeeds): number {
  return 4 * needs.maxSequences * needs.numLayers * blocks(needs);
}

function account({ freeBytes, fraction, weightBytes, workspaceBytes }: DeviceRoom): string {
  const part = `${Math.round(100 * fraction)}% of ${size(freeBytes)} free`;
  return `${part}, weights ${size(weightBytes)}, workspace ${size(workspaceBytes)}`;
}

function size(bytes: number): string {
  const [scale, unit] =
    Math.abs(bytes) < 2 ** 20 ? [2 ** 10, "KiB"] : Math.abs(bytes) < GIB ? [2 ** 20, "MiB"] : [GIB, "GiB"];
  return `${(bytes / scale).toFixed(1)} ${unit}`;
}

function refuse(why: string): never {
  throw new RequestError("device_memory", `Cannot divide the device's memory: ${why}`);
}
