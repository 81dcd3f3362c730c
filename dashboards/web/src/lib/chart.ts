// The options of a uPlot line chart. Pure but for what uPlot itself does.

import type uPlot from 'uplot';
import type { ChartData, XAxis } from './curves';
import { digitsFor, metric, reading, significant } from './format';
import { labelDigits, logLabels, logSplits } from './ticks';

export interface ChartInput {
  width: number;
  data: ChartData;
  colors: Map<string, string>;
  axis: XAxis;
  /** The name of the series, which says how its values are written. */
  series: string;
  yLabel: string;
  isLogX: boolean;
  isLogY: boolean;
  style: CSSStyleDeclaration;
  onFocus: (label: string | null) => void;
  /** Hears which part of the x axis is shown; null when it is all of it. */
  onZoom: (range: { min: number; max: number } | null) => void;
}

const X_LABELS: Record<XAxis, string> = {
  step: 'optimizer steps',
  tokens: 'training tokens D',
  flops: 'training FLOPs C (exact)',
};

export const HEIGHT = 340;

/** Later runs of a group are drawn fainter, so that its sizes can be told apart. */
function withRank(color: string, rank: number, ranks: number): string {
  const share = ranks <= 1 ? 1 : 0.4 + (0.6 * (rank + 1)) / ranks;
  const alpha = Math.round(share * 255);
  return color + alpha.toString(16).padStart(2, '0');
}

/** What a chart shows, for those who do not see it. */
export function description({ data, axis, yLabel }: Pick<ChartInput, 'data' | 'axis' | 'yLabel'>): string {
  const n = data.series.length;
  return `${yLabel} over ${X_LABELS[axis]}, ${n} curve${n === 1 ? '' : 's'}`;
}

/** Whether the user has chosen a part of the x axis: the whole of it holds every point. */
export function isZoomed(range: uPlot.Scale, x: ArrayLike<number>): boolean {
  // No logarithmic axis holds a zero.
  const held = Array.from(x).filter((one) => range.distr !== 3 || one > 0);
  const [first, last] = [held[0], held.at(-1)];
  if (first === undefined || last === undefined) return false;
  // The ends of a logarithmic axis are rounded.
  const slack = (end: number): number => 1e-9 * Math.abs(end);
  return (range.min ?? first) > first + slack(first) || (range.max ?? last) < last - slack(last);
}

function axes(input: ChartInput): uPlot.Axis[] {
  const grid = { stroke: 'rgba(128,128,128,0.18)', width: 1 };
  const font = '12px system-ui, sans-serif';
  // A computed style follows the theme: it is read at every drawing.
  const stroke = (): string => input.style.getPropertyValue('color');
  const common = { stroke, grid, ticks: grid, font, labelFont: font, labelSize: 18 };
  const scale = (isLog: boolean) =>
    isLog
      ? {
          splits: (_: uPlot, _axis: number, min: number, max: number) => logSplits(min, max),
          filter: (_: uPlot, splits: number[]) => logLabels(splits),
        }
      : {};
  const values = (format: (value: number, digits: number) => string) => (_: uPlot, labels: (number | null)[]) => {
    const digits = labelDigits(labels);
    return labels.map((value) => (value === null ? '' : format(value, digits)));
  };
  return [
    { ...common, ...scale(input.isLogX), label: X_LABELS[input.axis], values: values(metric) },
    {
      ...common,
      ...scale(input.isLogY),
      label: input.yLabel,
      size: 58,
      values: values((value, digits) => significant(value, Math.max(4, digits))),
    },
  ] as uPlot.Axis[];
}

export function chartOptions(input: ChartInput): uPlot.Options {
  const { data } = input;
  const ranks = new Map<string, number>();
  for (const { group, rank } of data.series) ranks.set(group, Math.max(ranks.get(group) ?? 0, rank + 1));

  return {
    width: input.width,
    height: HEIGHT,
    legend: { show: false },
    focus: { alpha: 0.25 },
    cursor: { focus: { prox: 24 }, points: { show: false }, y: false },
    scales: {
      x: { time: false, distr: input.isLogX ? 3 : 1 },
      y: { distr: input.isLogY ? 3 : 1 },
    },
    axes: axes(input),
    series: [
      {},
      ...data.series.map((series): uPlot.Series => ({
        label: series.label,
        stroke: withRank(input.colors.get(series.group) ?? '#3b82c4', series.rank, ranks.get(series.group) ?? 1),
        width: 1.6,
        // A null breaks the line; uPlot passes over what is undefined by itself.
        spanGaps: false,
        points: { show: (plot) => plot.data[0].length < 30 },
      })),
    ],
    hooks: { setSeries: [focusHook(input)], setCursor: [focusHook(input)], setScale: [zoomHook(input)] },
  };
}

function zoomHook(input: ChartInput): (plot: uPlot, scale: string) => void {
  return (plot, scale) => {
    if (scale !== 'x') return;
    const range = plot.scales.x ?? {};
    const { min, max } = range;
    const isPart = typeof min === 'number' && typeof max === 'number' && isZoomed(range, plot.data[0]);
    input.onZoom(isPart ? { min, max } : null);
  };
}

/** Says which curve is under the pointer and what it reads there. */
function focusHook(input: ChartInput): (plot: uPlot) => void {
  return (plot) => {
    const focused = plot.series.findIndex((series, index) => index > 0 && (series as { _focus?: boolean })._focus === true);
    const at = plot.cursor.idx;
    if (focused < 1 || at === null || at === undefined) return input.onFocus(null);
    // The plot's own data: they may be newer than those that it was made with.
    const nearest = nearestPoint(plot.data[focused] ?? [], at);
    if (nearest === null) return input.onFocus(null);
    const x = plot.data[0][nearest.index] ?? 0;
    const { min, max } = plot.scales.x ?? {};
    const digits = x === 0 ? 3 : digitsFor(x, ((max ?? x) - (min ?? x)) / 10 || Infinity);
    input.onFocus(`${plot.series[focused]?.label}: ${reading(input.series, nearest.value)} at ${metric(x, digits)}`);
  };
}

/** The series' own point nearest to an index of the shared axis. */
export function nearestPoint(
  ys: ArrayLike<number | null | undefined>,
  at: number,
): { index: number; value: number } | null {
  for (let distance = 0; distance < ys.length; distance += 1) {
    for (const index of [at - distance, at + distance]) {
      const value = ys[index];
      if (typeof value === 'number') return { index, value };
    }
  }
  return null;
}
