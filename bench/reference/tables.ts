// The comparison as Markdown: our figures beside the reference's.
import type { DistilledModel, DistilledRun } from "./distillation.ts";
import type { SearchResult } from "./searches.ts";
import { mean, type Reference, type ReferenceSearch, VARIANTS } from "./setting.ts";
import type { SortingResult } from "./sorting.ts";

export interface Comparison {
  readonly date: string;
  readonly machine: string;
  readonly commit: string;
  readonly isa: string;
  readonly threads: number;
  readonly models: readonly DistilledModel[];
  readonly searches: readonly SearchResult[];
  readonly sorting: readonly SortingResult[];
}

const four = (values: readonly number[]) => values.map((value) => value.toFixed(4)).join(" ");
const three = (values: readonly number[]) => values.map((value) => value.toFixed(3)).join(" ");

/** "none" first, then by number of layers. Keys like "0" would otherwise come first wherever an object is listed. */
function byLayers(figures: Readonly<Record<string, number>>): string[] {
  const size = (key: string) => (key === "none" ? 0 : key.split("+").length);
  return Object.keys(figures).sort((a, b) => size(a) - size(b) || a.localeCompare(b));
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** The whole document. */
export function toMarkdown(comparison: Comparison, reference: Reference): string {
  const { date, machine, commit, isa, threads, models, searches, sorting } = comparison;
  return [
    "# Comparison with an independent PyTorch run of Distill-then-Replace",
    `Made by \`bun bench/reference_comparison.ts\` on ${date}, ${machine}, kernels ${isa}, ${threads} thread, commit ${commit}.`,
    "The reference figures come from `dtr_reference.json` of the test data: same texts, same token budgets, same measures.",
    "## Unexplained variance per layer on held-out text, at the end",
    errorTable(models, reference),
    "Along the way (one run each, rate not yet annealed):",
    historyTable(models),
    "## Perplexity on the 89 ASCII texts",
    perplexityTable(models, reference),
    "## Speed and memory of the conversions, one thread, parent included",
    "The machine had other work while this ran: the rate per processor second is what an idle core gives.",
    speedTable(models),
    "## Greedy search on tiny1m",
    "Scores after each round on the search and the report documents; optimal = last round before the score falls more than 5 % below the base.",
    searchTable(searches, reference),
    "## Strategies on tiny1m, mean over tasks, metrics and variants (search / report)",
    strategyTable(searches),
    "## gpt-nano-sort: exactly sorted of 729 by replaced layers",
    sortingTable(sorting),
    "",
  ].join("\n\n");
}

function errorTable(models: readonly DistilledModel[], reference: Reference): string {
  const rows = models.flatMap(({ name, runs }) =>
    runs.map(({ variant, unexplained }) => {
      const theirs = reference.distillation[name]!.rows_begin_with_bos[variant]!.heldout_relative_error_final;
      const change = (mean(unexplained) / mean(theirs) - 1) * 100;
      return [
        name,
        variant,
        four(unexplained),
        mean(unexplained).toFixed(4),
        four(theirs),
        mean(theirs).toFixed(4),
        `${change.toFixed(1)} %`,
      ];
    }),
  );
  return table(["model", "variant", "graft", "mean", "reference", "mean", "difference"], rows);
}

function historyTable(models: readonly DistilledModel[]): string {
  const rows = models.flatMap(({ name, runs }) =>
    runs.flatMap(({ variant, history }) =>
      history.map(({ tokens, unexplained }) => [
        name,
        variant,
        String(tokens),
        four(unexplained),
        mean(unexplained).toFixed(4),
      ]),
    ),
  );
  return table(["model", "variant", "tokens", "layers", "mean"], rows);
}

function perplexityTable(models: readonly DistilledModel[], reference: Reference): string {
  const cells = (figures: Readonly<Record<string, number>>, keys: readonly string[]) =>
    keys.map((key) => figures[key]!.toFixed(3));
  const rows = models.flatMap(({ name, runs }) =>
    runs.flatMap(({ variant, perplexity }) => {
      const keys = byLayers(perplexity);
      const theirs = reference.perplexity[name]!.rows_begin_with_bos[variant]!.perplexity_ascii89;
      return [[perplexity, "graft"] as const, [theirs, "reference"] as const].map(([figures, whose]) => {
        const [base, ...rest] = cells(figures, keys);
        return [name, variant, whose, base!, rest.slice(0, -1).join(" "), rest.at(-1)!];
      });
    }),
  );
  return table(["model", "variant", "", "base", "one layer linear (0, 1, ...)", "all linear"], rows);
}

function speedTable(models: readonly DistilledModel[]): string {
  const rows = models.flatMap(({ name, runs }) =>
    runs.map((run: DistilledRun) => [
      name,
      run.variant,
      String(run.recipe.steps * run.recipe.rowsPerStep * run.recipe.rowLength),
      run.tokensPerSecond.toFixed(0),
      run.tokensPerCpuSecond.toFixed(0),
      (run.scratchBytes / 2 ** 20).toFixed(1),
      (run.studentBytes / 2 ** 20).toFixed(1),
    ]),
  );
  const head = [
    "model",
    "variant",
    "tokens",
    "tokens/s (wall)",
    "tokens per processor second",
    "scratch MiB",
    "students MiB",
  ];
  return table(head, rows);
}

function searchTable(searches: readonly SearchResult[], reference: Reference): string {
  const rows = searches.flatMap(({ task, metric, variant, base, order, search, report, best, optimal }) => {
    const theirs = reference.search.tiny1m?.rows_begin_with_bos[task]?.[metric]?.[variant];
    const name = (layers: readonly number[]) => (layers.length === 0 ? "none" : layers.join("+"));
    const selected = (found: typeof best) =>
      `${name(found.layers)}: ${found.score.toFixed(3)} / ${found.report.toFixed(3)}`;
    const ours = [
      `${task} ${metric}`,
      variant,
      "graft",
      `${base.search.toFixed(3)} / ${base.report.toFixed(3)}`,
      order.join(" "),
      three(search),
      three(report),
      selected(best),
      selected(optimal),
    ];
    return theirs === undefined ? [ours] : [ours, referenceRow(theirs)];
  });
  return table(["task", "variant", "", "base", "order", "search", "report", "best", "optimal"], rows);
}

function referenceRow({ greedy_rounds: rounds }: ReferenceSearch): string[] {
  return [
    "",
    "",
    "reference",
    "",
    rounds.map((round) => round.chosen_layer).join(" "),
    three(rounds.map((round) => round.score)),
    three(rounds.map((round) => round.report_score)),
    "",
    "",
  ];
}

function strategyTable(searches: readonly SearchResult[]): string {
  const names = Object.keys(searches[0]?.strategies ?? {});
  const rounds = (searches[0]?.search.length ?? 1) - 1;
  const rows = Array.from({ length: rounds }, (_, round) => [
    String(round + 1),
    ...names.map((name) => {
      const scores = searches.map(({ strategies }) => strategies[name]![round]!);
      return `${mean(scores.map((score) => score.search)).toFixed(3)} / ${mean(scores.map((score) => score.report)).toFixed(3)}`;
    }),
  ]);
  const found = searches.flatMap(({ greedyIsBestOfSize }) => greedyIsBestOfSize);
  const best = `Greedy found the best subset of its size in ${found.filter(Boolean).length} of ${found.length} cases.`;
  return `${table(["replaced", ...names], rows)}\n\n${best}`;
}

function sortingTable(sorting: readonly SortingResult[]): string {
  const keys = byLayers(sorting[0]?.sorted ?? {});
  const rows = VARIANTS.flatMap((variant) => {
    const result = sorting.find((one) => one.variant === variant);
    if (result === undefined) return [];
    return [
      [variant, "distilled", four(result.unexplained), ...keys.map((key) => String(result.sorted[key]))],
      [variant, "not distilled", "", ...keys.map((key) => String(result.sortedUndistilled[key]))],
    ];
  });
  return table(["variant", "", "unexplained variance", ...keys], rows);
}
