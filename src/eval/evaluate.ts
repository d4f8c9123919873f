// Scores one hybrid on a prepared task, through the engine alone. Knows neither HTTP nor the store.
import type { GenerateRequest, GenerateResult, ScoreRequest, ScoreResult } from "../engine/types.ts";
import type { PreparedDocument, PreparedTask } from "./requests.ts";
import { trimmedEnd } from "./requests.ts";
import { type DocumentRecord, type Metric, type MetricSummary, scoreChoices, summarise } from "./scoring.ts";

type Awaitable<T> = T | Promise<T>;

/** The parts of an engine, or of a client to one, that evaluation uses. */
export interface EvalEngine {
  score(requests: readonly ScoreRequest[]): Awaitable<ScoreResult[]>;
  generate(requests: readonly GenerateRequest[]): Awaitable<GenerateResult[]>;
}

/** How a task is scored. */
export interface EvaluateOptions {
  /** Completions: decode greedily and compare the text, instead of asking whether greedy decoding writes exactly its ids. */
  readonly generate?: { decode(ids: readonly number[]): string } | null;
  readonly onDocument?: (done: number, total: number) => void;
  /** Documents handed to the engine at once. */
  readonly batch?: number;
}

/** One hybrid's results on one task. */
export interface Evaluation {
  readonly task: string;
  readonly hybrid: string;
  readonly bos: PreparedTask["bos"];
  readonly numDocuments: number;
  readonly metrics: { readonly [M in Metric]?: MetricSummary };
  /** How often each choice index was predicted under acc (label stickiness shows here); empty for completions. */
  readonly predictedLabels: readonly number[];
  /** Documents with a log-likelihood that is not a number. */
  readonly numFailed: number;
  /** Documents whose context lost ids on the left. */
  readonly numTruncated: number;
  readonly seconds: number;
  readonly documents: readonly DocumentRecord[];
}

const DEFAULT_BATCH = 16;

/** Scores every document; the records come in the order of the task. */
export async function evaluate(
  engine: EvalEngine,
  hybrid: string,
  task: PreparedTask,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  const start = performance.now();
  const records: DocumentRecord[] = [];
  const batch = options.batch ?? DEFAULT_BATCH;
  for (let first = 0; first < task.documents.length; first += batch) {
    const documents = task.documents.slice(first, first + batch);
    const generated = task.kind === "completion" && options.generate != null;
    records.push(
      ...(generated
        ? await generateBatch(engine, hybrid, documents, options.generate!.decode)
        : await scoreBatch(engine, hybrid, task.kind, documents)),
    );
    options.onDocument?.(records.length, task.documents.length);
  }
  return summariseTask(task, hybrid, records, (performance.now() - start) / 1000);
}

/** The number a search goes by: NaN where any document failed or the task lacks the metric. */
export function metricOf(evaluation: Evaluation, metric: Metric): number {
  return evaluation.numFailed > 0 ? Number.NaN : (evaluation.metrics[metric]?.mean ?? Number.NaN);
}

/** Metrics of a task's kind, the usual one first. */
export function metricsOf(kind: PreparedTask["kind"]): readonly Metric[] {
  return kind === "choice" ? ["acc", "acc_norm"] : ["exact_match"];
}

/** 0 or 1 for every document, for paired comparisons. */
export function outcomes(evaluation: Evaluation, metric: Metric): number[] {
  return evaluation.documents.map((record) => (metric === "acc_norm" ? record.accNorm : record.acc));
}

async function scoreBatch(
  engine: EvalEngine,
  hybrid: string,
  kind: PreparedTask["kind"],
  documents: readonly PreparedDocument[],
): Promise<DocumentRecord[]> {
  const requests = documents.flatMap((document) =>
    document.requests.map(({ contextIds, continuationIds }) => ({ hybrid, contextIds, continuationIds })),
  );
  const results = await engine.score(requests);
  let at = 0;
  return documents.map((document) => {
    const own = results.slice(at, at + document.requests.length);
    at += own.length;
    const sums = own.map(({ logprobs }) => logprobs.reduce((sum, value) => sum + value, 0));
    if (kind === "choice") return scoreChoices(document.id, document.gold, sums, document.lengths);
    const failed = Number.isNaN(sums[0]);
    return completionRecord(document.id, sums[0]!, !failed && own[0]!.greedy);
  });
}

async function generateBatch(
  engine: EvalEngine,
  hybrid: string,
  documents: readonly PreparedDocument[],
  decode: (ids: readonly number[]) => string,
): Promise<DocumentRecord[]> {
  const results = await engine.generate(
    documents.map(({ requests: [request] }) => ({
      hybrid,
      promptIds: request!.contextIds,
      maxTokens: request!.continuationIds.length,
    })),
  );
  return documents.map((document, i) => {
    const { tokenIds } = results[i]!;
    const expected = document.requests[0]!.continuationIds;
    const sameIds = tokenIds.length === expected.length && tokenIds.every((id, j) => id === expected[j]);
    const written = document.completion === undefined ? tokenIds.join(" ") : decode(tokenIds);
    const matched = sameIds || (document.completion !== undefined && strip(written) === strip(document.completion));
    return {
      ...completionRecord(document.id, Number.NEGATIVE_INFINITY, matched),
      logLikelihoods: [],
      generated: written,
    };
  });
}

function completionRecord(id: string, logLikelihood: number, matched: boolean): DocumentRecord {
  const hit = matched ? 1 : 0;
  const predicted = matched ? 0 : -1;
  return { id, gold: 0, logLikelihoods: [logLikelihood], predicted, predictedNorm: predicted, acc: hit, accNorm: hit };
}

function strip(text: string): string {
  return text.slice(0, trimmedEnd(text)).trimStart();
}

function summariseTask(
  task: PreparedTask,
  hybrid: string,
  documents: readonly DocumentRecord[],
  seconds: number,
): Evaluation {
  const choice = task.kind === "choice";
  const acc = summarise(documents.map((record) => record.acc));
  const labels = Array.from({ length: Math.max(0, ...task.documents.map(({ requests }) => requests.length)) }, () => 0);
  if (choice) for (const { predicted } of documents) if (predicted >= 0) labels[predicted]!++;
  return {
    task: task.name,
    hybrid,
    bos: task.bos,
    numDocuments: documents.length,
    metrics: choice ? { acc, acc_norm: summarise(documents.map((record) => record.accNorm)) } : { exact_match: acc },
    predictedLabels: choice ? labels : [],
    numFailed: documents.filter(({ logLikelihoods }) => logLikelihoods.some(Number.isNaN)).length,
    numTruncated: task.documents.filter(({ requests }) => requests.some(({ dropped }) => dropped > 0)).length,
    seconds,
    documents,
  };
}
