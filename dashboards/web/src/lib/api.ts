// The one place that reads the API. The types are generated from its OpenAPI document
// (`npm run generate`).

import type { components } from './schema';

type Schemas = components['schemas'];
export type StudyList = Schemas['StudyList'];
export type StudySummary = Schemas['StudySummary'];
export type StudyView = Schemas['StudyView'];
export type RunList = Schemas['RunList'];
export type RunSummary = Schemas['RunSummary'];
export type RunView = Schemas['RunView'];
export type AttemptView = Schemas['AttemptView'];
export type CheckpointView = Schemas['CheckpointView'];
export type EvaluationView = Schemas['EvaluationView'];
export type CurveList = Schemas['CurveList'];
export type Curve = Schemas['Curve'];
export type LogList = Schemas['LogList'];
export type LogLineView = Schemas['LogLineView'];
export type WorkerList = Schemas['WorkerList'];
export type WorkerView = Schemas['WorkerView'];
export type FitReport = Schemas['FitReport'];
export type GroupFit = Schemas['GroupFit'];
export type MethodFit = Schemas['MethodFit'];
export type HeldOutView = Schemas['HeldOutView'];
export type ExcludedRun = Schemas['ExcludedRun'];
export type EstimateView = Schemas['EstimateView'];
export type EventView = Schemas['EventView'];
export type HealthView = Schemas['HealthView'];
type ErrorBody = Schemas['ErrorBody'];

const BASE = '/api/v1';
const UNAUTHORIZED = 401;

/** Log lines asked for at a time: the most that the API gives. */
export const LOG_PAGE = 10_000;

/** The coordinator asks for its token, and this browser has not shown it. */
export class TokenNeeded extends Error {}

/** Far longer than any answer takes: only a dead connection is silent for so long. */
const TIMEOUT_MS = 60_000;

async function get<T>(path: string): Promise<T> {
  const response = await fetch(BASE + path, {
    headers: { accept: 'application/json' },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.ok) return (await response.json()) as T;
  throw await refusal(response);
}

async function refusal(response: Response): Promise<Error> {
  let message = `the coordinator answered ${response.status}`;
  try {
    const body = (await response.json()) as Partial<ErrorBody> | null;
    message = body?.message || message;
  } catch {
    // The body is no error of the API: the status says it all.
  }
  return response.status === UNAUTHORIZED ? new TokenNeeded(message) : new Error(message);
}

/** Shows the token once; from then on this browser has a session. */
export async function signIn(token: string): Promise<void> {
  const body: Schemas['SignIn'] = { token };
  const response = await fetch(`${BASE}/session`, {
    method: 'POST',
    headers: { accept: 'application/json', 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!response.ok) throw await refusal(response);
}

const name = encodeURIComponent;

/** Steps of a curve, both ends included. */
export interface StepWindow {
  from: number;
  to: number;
}

/** Without a window a curve is asked for from its first to its last step. */
function within(window: StepWindow | null): string {
  return window === null ? '' : `&from_step=${window.from}&to_step=${window.to}`;
}

export const api = {
  health: () => get<HealthView>('/health'),
  studies: () => get<StudyList>('/studies'),
  study: (study: string) => get<StudyView>(`/studies/${name(study)}`),
  runs: (study: string) => get<RunList>(`/studies/${name(study)}/runs`),
  curves: (study: string, series: string, window: StepWindow | null) =>
    get<CurveList>(`/studies/${name(study)}/curves?series=${name(series)}&max_points=400${within(window)}`),
  fit: (study: string) => get<FitReport>(`/studies/${name(study)}/fit`),
  run: (run: string) => get<RunView>(`/runs/${name(run)}`),
  runCurves: (run: string, series: string, window: StepWindow | null) =>
    get<CurveList>(`/runs/${name(run)}/curves?series=${name(series)}&max_points=1500${within(window)}`),
  /** A page of log lines with numbers above `after`, the oldest first. */
  logs: (run: string, after: number) => get<LogList>(`/runs/${name(run)}/logs?after=${after}&limit=${LOG_PAGE}`),
  workers: () => get<WorkerList>('/workers'),
};
