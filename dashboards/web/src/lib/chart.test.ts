import type uPlot from 'uplot';
import { describe, expect, it } from 'vitest';
import { chartOptions, description, isZoomed, nearestPoint } from './chart';

const input = (series: string, color = () => '#000') => ({
  width: 600,
  data: { x: [1e21], ys: [[1]], series: [{ label: 'tnl-a', group: 'tnl', runId: 'r_1', rank: 0 }] },
  colors: new Map<string, string>(),
  axis: 'flops' as const,
  series,
  yLabel: series,
  isLogX: true,
  isLogY: false,
  style: { getPropertyValue: color } as unknown as CSSStyleDeclaration,
  onFocus: (_: string | null): void => {},
  onZoom: (_: { min: number; max: number } | null): void => {},
});

/** What a chart of one curve says of the point under the pointer. */
function said(series: string, value: number, x = 1e21, scale = { min: 1e20, max: 1e22 }): string | null {
  let label: string | null = null;
  const options = chartOptions({ ...input(series), onFocus: (focused) => (label = focused) });
  const plot = {
    series: [{}, { _focus: true, label: 'tnl-a' }], cursor: { idx: 0 }, data: [[x], [value]], scales: { x: scale },
  } as unknown as uPlot;
  for (const hook of options.hooks?.setCursor ?? []) hook?.(plot);
  return label;
}

describe('the read-out of a chart', () => {
  it('is a loss only where the series is one', () => {
    expect(said('train_loss_nats', 3.25)).toBe('tnl-a: 3.2500 at 1.00e21');
    expect(said('learning_rate', 3e-5)).toBe('tnl-a: 3e-5 at 1.00e21');
    expect(said('tokens', 52_428_800)).toBe('tnl-a: 52.43M at 1.00e21');
  });
  it('has as many digits as a narrow range needs', () => {
    expect(said('train_loss_nats', 3, 1.0002e9, { min: 1e9, max: 1.001e9 })).toBe('tnl-a: 3.0000 at 1.0002G');
    expect(said('train_loss_nats', 3, 1.0002e9, { min: 1e3, max: 2e9 })).toBe('tnl-a: 3.0000 at 1.00G');
  });
  it('is of the nearest point that the curve has', () => {
    expect(nearestPoint([1, undefined, null, 4], 1)).toEqual({ index: 0, value: 1 });
    expect(nearestPoint([undefined, null], 0)).toBeNull();
  });
});

describe('the range of a chart', () => {
  it('is a choice of the user only where a point is outside', () => {
    expect(isZoomed({ min: 1, max: 8 }, [1, 2, 8])).toBe(false);
    expect(isZoomed({ min: 1e6 * (1 + 1e-12), max: 1e9 }, [1e6, 1e9])).toBe(false);
    expect(isZoomed({ min: 2, max: 8 }, [1, 2, 8])).toBe(true);
    expect(isZoomed({ min: 1, max: 7 }, [1, 2, 8])).toBe(true);
    expect(isZoomed({}, [])).toBe(false);
  });
  it('is told where it is a choice, and only of the x axis', () => {
    const told: unknown[] = [];
    const options = chartOptions({ ...input('train_loss_nats'), onZoom: (range) => told.push(range) });
    const set = (x: uPlot.Scale, scale: string): void => {
      const plot = { scales: { x }, data: [[1, 2, 8]] } as unknown as uPlot;
      for (const hook of options.hooks?.setScale ?? []) hook?.(plot, scale);
    };
    set({ min: 2, max: 4 }, 'x');
    set({ min: 2, max: 4 }, 'y');
    set({ min: 1, max: 8 }, 'x');
    set({}, 'x');
    expect(told).toEqual([{ min: 2, max: 4 }, null, null]);
  });
  it('does not have to hold a zero that a logarithm has no place for', () => {
    expect(isZoomed({ min: 1, max: 8, distr: 3 }, [0, 1, 8])).toBe(false);
  });
});

describe('a chart', () => {
  it('reads the colour of its axes at every drawing', () => {
    let color = '#111';
    const axes = chartOptions(input('train_loss_nats', () => color)).axes ?? [];
    color = '#eee';
    expect(axes.map((axis) => (axis.stroke as () => string)())).toEqual(['#eee', '#eee']);
  });
  it('breaks its curves at nulls', () => {
    expect(chartOptions(input('train_loss_nats')).series[1]?.spanGaps).toBe(false);
  });
  it('says in words what it shows', () => {
    expect(description(input('learning_rate'))).toBe('learning_rate over training FLOPs C (exact), 1 curve');
  });
});
