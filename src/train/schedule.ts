// Learning rate as a function of the step. Pure.

/** Linear rise, then a cosine or a constant. */
export interface Schedule {
  readonly kind: "cosine" | "constant";
  readonly peak: number;
  /** Steps of the linear rise; step 0 already has peak / warmupSteps. */
  readonly warmupSteps: number;
  readonly totalSteps: number;
  /** Share of the peak that the cosine ends on. */
  readonly floor: number;
}

/** Rate of step 0..totalSteps-1. */
export function learningRate(schedule: Schedule, step: number): number {
  const { peak, totalSteps, floor } = schedule;
  const warmupSteps = Math.min(schedule.warmupSteps, totalSteps);
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  if (schedule.kind === "constant") return peak;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - 1 - warmupSteps));
  return peak * (floor + (1 - floor) * 0.5 * (1 + Math.cos(Math.PI * progress)));
}
