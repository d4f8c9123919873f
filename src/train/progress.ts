// How long work tells its caller where it is. Knows neither terminals nor jobs; both are receivers.

/** Values that travel with progress and events; must survive JSON. */
export type ReportData = Readonly<Record<string, unknown>>;

/** Called often; the receiver decides what is worth showing or storing. */
export interface Progress {
  /** `done` of `total` units are finished (`unit` in the plural); `data` are the latest figures, { round: 2 }. */
  progress(done: number, total: number, unit: string, data?: ReportData): void;
  /** Something worth keeping happened, e.g. event("round", { layer: 3, score: 0.71 }). */
  event(kind: string, data?: ReportData): void;
  /** Whether to stop at the next safe point. Cheap enough for every step. */
  cancelled(): boolean;
}

/** Reports to nobody. */
export const noProgress: Progress = { progress() {}, event() {}, cancelled: () => false };
