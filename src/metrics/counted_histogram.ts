// A Prometheus histogram whose counts are kept elsewhere and only repeated here at each scrape.

import { Histogram, type Registry } from "prom-client";

/** Counts of one moment: one per bound, not added up, and one more for what is above the last. */
export interface HistogramCounts {
  readonly labels: Readonly<Record<string, string>>;
  readonly counts: readonly number[];
  readonly sum: number;
}

/** Registers a histogram that shows what `read` says; null: nothing yet. */
export function registerHistogram(
  registry: Registry,
  family: { name: string; help: string; bounds: readonly number[]; read: () => HistogramCounts | null },
): void {
  const { name, help, bounds, read } = family;
  const histogram = new Histogram<string>({ name, help, buckets: [...bounds], registers: [] });
  const described = histogram.get();
  const get = async () => {
    const shown = read();
    return { ...(await described), values: shown === null ? [] : values(shown) };
  };
  // The text of a scrape is made by a second method that prom-client does not declare.
  Object.assign(histogram, { get, getForPromString: get });
  registry.registerMetric(histogram);

  function values({ labels, counts, sum }: HistogramCounts) {
    let total = 0;
    const buckets = counts.map((count, i) => {
      total += count;
      const le = i < bounds.length ? bounds[i]! : "+Inf";
      return { metricName: `${name}_bucket`, exemplar: null, labels: { le, ...labels }, value: total };
    });
    const rest = [
      { metricName: `${name}_sum`, exemplar: null, labels, value: sum },
      { metricName: `${name}_count`, exemplar: null, labels, value: total },
    ];
    return [...buckets, ...rest];
  }
}
