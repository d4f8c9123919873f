// The recipe of a conversion: what the caller may set, and the defaults that suit a budget of tokens. Pure.
import type { Variant } from "../../models/attention/mixer.ts";
import type { Schedule } from "../train/schedule.ts";

/** nmse divides each batch's error by its target's mean square; mse does not. */
export type Loss = "nmse" | "mse";
/** copy: projections of the attention layer that is replaced; random: all drawn. */
export type Init = "copy" | "random";
/** ridge: the output gate starts as a positive constant on the layer's own inputs; random: as small noise. */
export type GateInit = "ridge" | "random";

/** What a caller may set; the rest follows from the budget. */
export interface RecipeOptions {
  readonly variants: readonly Variant[];
  /** Tokens to train on; 0 leaves the initial values. */
  readonly tokens: number;
  readonly seed?: number;
  readonly init?: Init;
  readonly loss?: Loss;
  readonly gateInit?: GateInit;
  /** Taps of a short convolution in gla; 0, the default: none. */
  readonly glaConv?: number;
  readonly tokensPerStep?: number;
  readonly rowLength?: number;
  readonly learningRate?: number;
  readonly warmupSteps?: number;
}

/** A complete recipe; every field takes part in the identity of a run. */
export interface Recipe {
  readonly variants: readonly Variant[];
  readonly tokens: number;
  readonly seed: number;
  readonly init: Init;
  readonly loss: Loss;
  readonly gateInit: GateInit;
  readonly glaConv: number;
  readonly rowLength: number;
  readonly rowsPerStep: number;
  readonly steps: number;
  readonly learningRate: number;
  readonly warmupSteps: number;
  /** Share of the peak rate that the cosine ends on. */
  readonly floor: number;
}

/** Small budgets want many small steps and a high rate; large ones want large steps, measured in docs/conversion.md. */
const BUDGETS = [
  { upTo: 4e6, tokensPerStep: 512, learningRate: 1e-2 },
  { upTo: 16e6, tokensPerStep: 1024, learningRate: 1e-2 },
  { upTo: 40e6, tokensPerStep: 4096, learningRate: 3e-3 },
  { upTo: 400e6, tokensPerStep: 16384, learningRate: 1e-3 },
  { upTo: Number.POSITIVE_INFINITY, tokensPerStep: 65536, learningRate: 1e-3 },
] as const;

const WARMUP_STEPS = 100;

/**
 * Fills in what the caller left open.
 * @param maxPositions the backbone's longest context
 * @throws RangeError for values that make no run
 */
export function resolveRecipe(options: RecipeOptions, maxPositions: number): Recipe {
  const { tokens } = options;
  if (!Number.isSafeInteger(tokens) || tokens < 0) {
    throw new RangeError(`Cannot convert: tokens is ${tokens}, expected a whole number of at least 0`);
  }
  if (options.variants.length === 0 || new Set(options.variants).size !== options.variants.length) {
    throw new RangeError(`Cannot convert: variants are "${options.variants.join()}", expected different ones`);
  }
  const budget = BUDGETS.find(({ upTo }) => tokens <= upTo)!;
  const tokensPerStep = options.tokensPerStep ?? budget.tokensPerStep;
  const rowLength = options.rowLength ?? Math.min(maxPositions, Math.max(256, Math.min(2048, tokensPerStep / 4)));
  if (rowLength < 2 || rowLength > maxPositions) {
    throw new RangeError(`Cannot convert: row length is ${rowLength}, expected 2 to the context of ${maxPositions}`);
  }
  const rowsPerStep = Math.max(1, Math.round(tokensPerStep / rowLength));
  const steps = Math.ceil(tokens / (rowsPerStep * rowLength));
  return {
    variants: options.variants,
    tokens,
    seed: options.seed ?? 1,
    init: options.init ?? "copy",
    loss: options.loss ?? "nmse",
    gateInit: options.gateInit ?? "ridge",
    glaConv: options.glaConv ?? 0,
    rowLength,
    rowsPerStep,
    steps,
    learningRate: options.learningRate ?? budget.learningRate,
    warmupSteps: Math.min(options.warmupSteps ?? WARMUP_STEPS, Math.ceil(steps / 5)),
    floor: 0.01,
  };
}

/** The learning rate of a recipe's steps. */
export function scheduleOf(recipe: Recipe): Schedule {
  const { learningRate, warmupSteps, steps, floor } = recipe;
  return { kind: "cosine", peak: learningRate, warmupSteps, totalSteps: Math.max(1, steps), floor };
}
