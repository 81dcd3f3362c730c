// The options of a uPlot line chart. Pure but for what uPlot itself does.

import type uPlot from 'uplot';
import type { ChartData, XAxis } from './curves';
import { metric, reading, significant } from './format';

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
}

const X_LABELS: Record<XAxis, string> = {
  step: 'optimizer steps',
  tokens: 'training tokens D',
  flops: 'training FLOPs C (exact)',
};

const HEIGHT = 340;

/** Later runs of a group are drawn fainter, so that its sizes can be told apart. */
function withRank(color: string, rank: number, ranks: number): string {
  const share = ranks <= 1 ? 1 : 0.4 + (0.6 * (rank + 1)) / ranks;
  const alpha = Math.round(share * 255);
  return color + alpha.toString(16).padStart(2, '0');
}

/** `10^k` labels only: uPlot offers every tenth of a decade on a logarithmic axis. */
export function decadesOnly(splits: number[]): (number | null)[] {
  const few = splits.filter((value) => value > 0).length < 8;
  return splits.map((value) => {
    const digit = value / 10 ** Math.floor(Math.log10(value));
    return few || Math.abs(digit - 1) < 1e-6 ? value : null;
  });
}

export function chartOptions(input: ChartInput): uPlot.Options {
  const { data, style } = input;
  const ranks = new Map<string, number>();
  for (const { group, rank } of data.series) ranks.set(group, Math.max(ranks.get(group) ?? 0, rank + 1));
  const stroke = style.getPropertyValue('color');
  const grid = { stroke: 'rgba(128,128,128,0.18)', width: 1 };
  const font = '12px system-ui, sans-serif';
  const axis = { stroke, grid, ticks: grid, font, labelFont: font, labelSize: 18 };
  const filter = (isLog: boolean) => (isLog ? (_: uPlot, splits: number[]) => decadesOnly(splits) : undefined);
  const values = (format: (value: number) => string) => (_: uPlot, splits: (number | null)[]) =>
    splits.map((value) => (value === null ? '' : format(value)));

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
    axes: [
      { ...axis, label: X_LABELS[input.axis], filter: filter(input.isLogX), values: values(metric) },
      {
        ...axis,
        label: input.yLabel,
        size: 58,
        filter: filter(input.isLogY),
        values: values(significant),
      },
    ] as uPlot.Axis[],
    series: [
      {},
      ...data.series.map((series): uPlot.Series => ({
        label: series.label,
        stroke: withRank(input.colors.get(series.group) ?? '#3b82c4', series.rank, ranks.get(series.group) ?? 1),
        width: 1.6,
        spanGaps: true,
        points: { show: data.x.length < 30 },
      })),
    ],
    hooks: { setSeries: [focusHook(input)], setCursor: [focusHook(input)] },
  };
}

/** Says which curve is under the pointer and what it reads there. */
function focusHook(input: ChartInput): (plot: uPlot) => void {
  return (plot) => {
    const focused = plot.series.findIndex((series, index) => index > 0 && (series as { _focus?: boolean })._focus === true);
    const at = plot.cursor.idx;
    if (focused < 1 || at === null || at === undefined) return input.onFocus(null);
    const nearest = nearestPoint(input.data.ys[focused - 1] ?? [], at);
    if (nearest === null) return input.onFocus(null);
    const x = input.data.x[nearest.index] ?? 0;
    input.onFocus(`${input.data.series[focused - 1]?.label}: ${reading(input.series, nearest.value)} at ${metric(x)}`);
  };
}

/** The series' own point nearest to an index of the shared axis. */
export function nearestPoint(
  ys: (number | null | undefined)[],
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
