// From the curves of the API to what uPlot draws. Pure.

import type { Curve, CurveList, StepWindow } from './api';

export type XAxis = 'step' | 'tokens' | 'flops';

export interface Series {
  label: string;
  group: string;
  runId: string;
  /** 0 for the first run of its group, growing. */
  rank: number;
}

export interface ChartData {
  /** The union of all x values, ascending. */
  x: number[];
  /**
   * For each series one value for each x; `undefined` where it has no point, which a line passes
   * over, and null where its value was not finite, which breaks the line.
   */
  ys: (number | null | undefined)[][];
  series: Series[];
}

/** A step of a curve as a position on the chosen axis. */
export function position(curve: Curve, step: number, axis: XAxis): number {
  if (axis === 'tokens') return step * curve.tokens_per_step;
  if (axis === 'flops') return step * curve.flops_per_step;
  return step;
}

/** The steps of any curve that lie between two positions of the axis; null without a curve. */
export function stepWindow(curves: Curve[], axis: XAxis, min: number, max: number): StepWindow | null {
  const perStep = curves.map((curve) => position(curve, 1, axis)).filter((size) => size > 0);
  if (perStep.length === 0) return null;
  const from = Math.max(0, Math.floor(min / Math.max(...perStep)));
  return { from, to: Math.max(from, Math.ceil(max / Math.min(...perStep))) };
}

/** Curves with what a closer look has found between some steps in place of their own points there. */
export function withDetail(whole: CurveList, detail: CurveList, { from, to }: StepWindow): CurveList {
  if (detail.series !== whole.series) return whole;
  const closer = new Map(detail.curves.map((curve) => [curve.run_id, curve]));
  const curves = whole.curves.map((curve) => {
    const detailed = closer.get(curve.run_id);
    if (detailed === undefined) return curve;
    const before = curve.steps.findIndex((step) => step >= from);
    const after = curve.steps.findIndex((step) => step > to);
    const join = <T>(own: T[], found: T[]): T[] => [
      ...own.slice(0, before < 0 ? own.length : before),
      ...found,
      ...(after < 0 ? [] : own.slice(after)),
    ];
    return { ...curve, steps: join(curve.steps, detailed.steps), values: join(curve.values, detailed.values) };
  });
  return { ...whole, curves };
}

/**
 * A null takes up all between the curve's own finite points beside it. uPlot breaks a line only as
 * far as the next x, which may be another curve's.
 */
function widened(ys: (number | null | undefined)[]): (number | null | undefined)[] {
  const wide = [...ys];
  let begin = 0;
  let isBroken = false;
  ys.forEach((y, index) => {
    if (y === null) isBroken = true;
    if (typeof y !== 'number') return;
    if (isBroken) wide.fill(null, begin, index);
    begin = index + 1;
    isBroken = false;
  });
  return wide;
}

/** Aligns curves with different x values; `groupBy` names the axis whose value is the group. */
export function align(curves: Curve[], axis: XAxis, groupBy: string | null): ChartData {
  const xs = new Set<number>();
  const points = curves.map((curve) => {
    const byX = new Map<number, number | null>();
    curve.steps.forEach((step, index) => {
      const x = position(curve, step, axis);
      xs.add(x);
      byX.set(x, curve.values[index] ?? null);
    });
    return byX;
  });
  const x = [...xs].sort((a, b) => a - b);
  const ranks = new Map<string, number>();
  const series = curves.map((curve) => {
    const group = (groupBy && curve.axis_values[groupBy]) || 'all';
    const rank = ranks.get(group) ?? 0;
    ranks.set(group, rank + 1);
    return { label: curve.name, group, runId: curve.run_id, rank };
  });
  return { x, ys: points.map((byX) => widened(x.map((at) => byX.get(at)))), series };
}
