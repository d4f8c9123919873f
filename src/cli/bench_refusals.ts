// Measurements go on where one case has no figure: it does not fit, or its kernels are wrong. Says so on standard error.
import type { Variant } from "../../models/attention/mixer.ts";
import type { CacheTypes } from "../bench/costs.ts";
import { checkSmallCase } from "../bench/small_case.ts";
import type { Subject, WeightType } from "../bench/subject.ts";
import { CapacityError, DeviceLostError, KernelError } from "../errors.ts";
import type { Ops } from "../ops/ops.ts";

/** What has no figure, in a run of several cases. */
export class Refusals {
  #first: Error | null = null;
  #wrong = false;

  /** The figure, or null where the case is refused. @throws what has nothing to do with the case */
  attempt<T>(name: string, measure: () => T): T | null {
    try {
      return measure();
    } catch (error) {
      const refused = error instanceof CapacityError || error instanceof KernelError;
      if (!refused || error instanceof DeviceLostError) throw error;
      this.#first ??= error;
      if (!doesNotFit(error)) this.#wrong = true;
      process.stderr.write(`No figure for ${name}: ${error.message}\n`);
      return null;
    }
  }

  /** Exit status of the command: 1 where kernels were wrong. @throws the first error where there is no figure at all */
  status(numFigures: number): number {
    if (numFigures === 0 && this.#first !== null) throw this.#first;
    return this.#wrong ? 1 : 0;
  }
}

/** Whether memory is what a case lacks. */
export function doesNotFit(error: unknown): boolean {
  return error instanceof CapacityError || (error instanceof KernelError && error.code === "out_of_memory");
}

/**
 * Holds a small model of the same heads against the reference: full attention alone, then with each variant. Answers the
 * variants that agree.
 * @throws KernelError where full attention does not
 */
export function agreeingVariants(
  ops: Ops,
  reference: Ops,
  config: Subject["model"]["config"],
  variants: readonly Variant[],
  types: CacheTypes & { readonly weightType: WeightType },
  refusals: Refusals,
): Variant[] {
  const check = (own: readonly Variant[]) => {
    const error = checkSmallCase(ops, reference, config, own, types);
    const name = ["full attention", ...own].join(" and ");
    process.stderr.write(
      `A small model of ${name} differs from the reference by ${error.toExponential(1)} of the spread\n`,
    );
    return true;
  };
  check([]);
  return variants.filter((variant) => refusals.attempt(variant, () => check([variant])));
}
