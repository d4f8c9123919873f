// One linear token mixer of a given shape, serving or training form: the literal table of variants.
import type { ParameterSet } from "../parameters.ts";
import type { WeightLoader } from "../weights.ts";
import { GdnAttention } from "./gdn.ts";
import { GlaAttention } from "./gla.ts";
import { JetAttention } from "./jet.ts";
import type { LinearShape, TokenMixer, TrainableMixer } from "./mixer.ts";
import { TrainableGdn } from "./train_gdn.ts";
import { TrainableGla } from "./train_gla.ts";
import { TrainableJet } from "./train_jet.ts";

/** @param weights scoped to the layer's tensors, already verified against the shape. */
export function createLinearMixer(weights: WeightLoader, shape: LinearShape): TokenMixer {
  switch (shape.variant) {
    case "gla":
      return new GlaAttention(weights, shape);
    case "gdn":
      return new GdnAttention(weights, shape);
    case "jet":
      return new JetAttention(weights, shape);
  }
}

/** @param params the layer's tensors without prefix, see linearTensors(). */
export function createTrainableLinear(params: ParameterSet, shape: LinearShape): TrainableMixer {
  switch (shape.variant) {
    case "gla":
      return new TrainableGla(params, shape);
    case "gdn":
      return new TrainableGdn(params, shape);
    case "jet":
      return new TrainableJet(params, shape);
  }
}
