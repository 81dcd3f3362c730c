import type uPlot from 'uplot';
import { describe, expect, it } from 'vitest';
import { chartOptions, decadesOnly, nearestPoint } from './chart';
import { metric } from './format';

/** What a chart of one curve says of the point under the pointer. */
function said(series: string, value: number): string | null {
  let label: string | null = null;
  const options = chartOptions({
    width: 600,
    data: { x: [1e21], ys: [[value]], series: [{ label: 'tnl-a', group: 'tnl', runId: 'r_1', rank: 0 }] },
    colors: new Map(),
    axis: 'flops',
    series,
    yLabel: series,
    isLogX: true,
    isLogY: false,
    style: { getPropertyValue: () => '#000' } as unknown as CSSStyleDeclaration,
    onFocus: (focused) => (label = focused),
  });
  const plot = { series: [{}, { _focus: true }], cursor: { idx: 0 } } as unknown as uPlot;
  for (const hook of options.hooks?.setCursor ?? []) hook?.(plot);
  return label;
}

describe('the read-out of a chart', () => {
  it('is a loss only where the series is one', () => {
    expect(said('train_loss_nats', 3.25)).toBe('tnl-a: 3.2500 at 1.00e21');
    expect(said('learning_rate', 3e-5)).toBe('tnl-a: 3e-5 at 1.00e21');
    expect(said('tokens', 52_428_800)).toBe('tnl-a: 52.43M at 1.00e21');
  });
  it('is of the nearest point that the curve has', () => {
    expect(nearestPoint([1, undefined, null, 4], 1)).toEqual({ index: 0, value: 1 });
    expect(nearestPoint([undefined, null], 0)).toBeNull();
  });
});

describe('ticks of a logarithmic axis', () => {
  it('are the powers of ten, on both sides of the last suffix', () => {
    const splits = [19, 20, 21, 22, 23].flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
    const kept = decadesOnly(splits).filter((value) => value !== null);
    expect(kept.map(metric)).toEqual(['10.0E', '100E', '1.00e21', '1.00e22', '1.00e23']);
  });
});
