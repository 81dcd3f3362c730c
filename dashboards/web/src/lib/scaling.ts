// From a fit report to what the scaling plot draws. Pure.

import type { EstimateView, ExcludedRun, FitReport, HeldOutView, MethodFit } from './api';

export interface MeasuredPoint {
  group: string;
  name: string;
  flops: number;
  loss: number;
  isHeldOut: boolean;
}

export interface BandPoint {
  group: string;
  flops: number;
  loss: number;
  low: number | null;
  high: number | null;
}

export interface ScalingMarks {
  measured: MeasuredPoint[];
  curve: BandPoint[];
}

/** The marks of one method of every group. */
export function scalingMarks(report: FitReport, method: string): ScalingMarks {
  const measured: MeasuredPoint[] = [];
  const curve: BandPoint[] = [];
  for (const group of report.groups) {
    for (const point of group.observations) {
      measured.push({
        group: group.group,
        name: point.name,
        flops: point.flops,
        loss: point.loss_nats,
        isHeldOut: point.is_held_out,
      });
    }
    for (const fit of group.fits.filter((candidate) => candidate.method === method)) {
      for (const point of fit.curve) {
        curve.push({
          group: group.group,
          flops: point.flops,
          loss: point.loss_nats,
          low: point.low ?? null,
          high: point.high ?? null,
        });
      }
    }
  }
  return { measured, curve };
}

/** The methods that appear in a report, in its order. */
export function methodsOf(report: FitReport): string[] {
  return [...new Set(report.groups.flatMap((group) => group.fits.map((fit) => fit.method)))];
}

/** The held-out rows of every group; one run may stand in several, so each row has its own key. */
export function heldOutRows(report: FitReport): (HeldOutView & { group: string; key: string })[] {
  return report.groups.flatMap(({ group, held_out }) =>
    held_out.map((row, index) => ({ ...row, group, key: JSON.stringify([group, row.method, index]) })),
  );
}

export interface ComparedRow {
  key: string;
  first: string;
  second: string;
  difference: EstimateView;
  compute: EstimateView;
  isBetter: number | null;
  crossover: EstimateView;
}

/** Every two groups, by method and budget. */
export function comparedAt(report: FitReport): { method: string; flops: number; rows: ComparedRow[] }[] {
  const places = new Map<string, { method: string; flops: number; rows: ComparedRow[] }>();
  for (const pair of report.comparisons ?? []) {
    const [first, second] = pair.names as [string, string];
    for (const at of pair.budgets) {
      const key = JSON.stringify([pair.method, at.flops]);
      const place = places.get(key) ?? { method: pair.method, flops: at.flops, rows: [] };
      places.set(key, place);
      place.rows.push({
        key: JSON.stringify([first, second]),
        first,
        second,
        difference: at.loss_difference_nats,
        compute: at.flops_ratio,
        isBetter: at.first_is_better ?? null,
        crossover: pair.crossover_flops,
      });
    }
  }
  return [...places.values()];
}

/** The excluded runs, each once for each reason. */
export function excludedRuns(report: FitReport): (ExcludedRun & { key: string })[] {
  const byKey = new Map<string, ExcludedRun & { key: string }>();
  for (const run of report.excluded) {
    const key = JSON.stringify([run.run_id, run.reason]);
    if (!byKey.has(key)) byKey.set(key, { ...run, key });
  }
  return [...byKey.values()];
}

/** What a reader should doubt: numbers that are not identified, what was dropped, and warnings. */
export function doubts(report: FitReport): string[] {
  const said = report.groups.flatMap(({ group, fits }) =>
    fits.flatMap((fit) => doubtsOf(fit).map((text) => ({ group, text: `${fit.method}${text}` }))),
  );
  const compared = (report.comparisons ?? []).flatMap(({ names, method, warnings }) =>
    (warnings ?? []).map((text) => `${names.join(' − ')}; ${method}: ${text}`),
  );
  return [...byText(said).map(({ groups, text }) => `${groups.join(', ')}; ${text}`), ...compared];
}

function doubtsOf(fit: MethodFit): string[] {
  const unknown = Object.entries(fit.coefficients).flatMap(([name, estimate]) =>
    estimate.status === 'not_identified' ? [`, ${name}: ${estimate.reason}`] : [],
  );
  const dropped = fit.dropped.map(({ what, reason }) => ` dropped ${what}: ${reason}`);
  return [...unknown, ...dropped, ...fit.warnings.map((warning) => `: ${warning}`)];
}

/** Equal texts once, each with the groups that it is said of; empty texts are left out. */
export function byText(said: { group: string; text: string }[]): { groups: string[]; text: string }[] {
  const groups = new Map<string, Set<string>>();
  for (const { group, text } of said.filter((one) => one.text !== '')) {
    groups.set(text, (groups.get(text) ?? new Set()).add(group));
  }
  return [...groups].map(([text, of]) => ({ groups: [...of], text }));
}
