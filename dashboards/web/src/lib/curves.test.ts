import { describe, expect, it } from 'vitest';
import type { Curve } from './api';
import { align, stepWindow, withDetail } from './curves';

const curve = (name: string, steps: number[], values: (number | null)[], tokens: number): Curve => ({
  run_id: `r_${name}`,
  name,
  axis_values: { architecture: name.split('-')[0] ?? '' },
  tokens_per_step: tokens,
  flops_per_step: 1e9,
  steps,
  values,
});

describe('aligned curves', () => {
  const curves = [curve('tnl-a', [1, 2], [3, null], 100), curve('tnl-b', [2, 4], [5, 6], 50)];

  it('shares one ascending axis and leaves gaps where a run has no point', () => {
    const data = align(curves, 'step', 'architecture');
    expect(data.x).toEqual([1, 2, 4]);
    expect(data.ys).toEqual([
      [3, null, undefined],
      [undefined, 5, 6],
    ]);
  });
  it('breaks a curve from its point before a value that is not finite to its point after it', () => {
    const broken = [curve('tnl-a', [1, 3, 5], [3, null, 2], 100), curve('tnl-b', [2, 4], [5, 6], 100)];
    expect(align(broken, 'step', 'architecture').ys).toEqual([
      [3, null, null, null, 2],
      [undefined, 5, undefined, 6, undefined],
    ]);
  });
  it('multiplies steps by each run’s own tokens', () => {
    expect(align(curves, 'tokens', null).x).toEqual([100, 200]);
  });
  it('ranks the runs of a group', () => {
    expect(align(curves, 'step', 'architecture').series.map((s) => [s.group, s.rank])).toEqual([
      ['tnl', 0],
      ['tnl', 1],
    ]);
  });
});

describe('a part of a chart', () => {
  const coarse = { series: 'loss', curves: [curve('a', [1, 40, 80, 120], [9, 8, 7, 6], 100), curve('b', [1, 80], [5, 4], 50)] };

  it('holds the steps of every curve', () => {
    expect(stepWindow(coarse.curves, 'tokens', 1_010, 2_020)).toEqual({ from: 10, to: 41 });
    expect(stepWindow(coarse.curves, 'step', 3, 3)).toEqual({ from: 3, to: 3 });
    expect(stepWindow([], 'step', 3, 9)).toBeNull();
  });
  it('has the points of a closer look, and the others stay', () => {
    const detail = { series: 'loss', curves: [curve('a', [40, 41, 79, 80], [8, 8.5, null, 7], 100)] };
    const [a, b] = withDetail(coarse, detail, { from: 30, to: 80 }).curves;
    expect(a?.steps).toEqual([1, 40, 41, 79, 80, 120]);
    expect(a?.values).toEqual([9, 8, 8.5, null, 7, 6]);
    expect(b).toEqual(coarse.curves[1]);
    const beyond = { series: 'loss', curves: [curve('a', [121], [5.5], 100)] };
    expect(withDetail(coarse, beyond, { from: 121, to: 500 }).curves[0]?.steps).toEqual([1, 40, 80, 120, 121]);
  });
  it('is not taken from another series', () => {
    const other = { series: 'mfu', curves: [curve('a', [40], [1], 100)] };
    expect(withDetail(coarse, other, { from: 30, to: 80 })).toBe(coarse);
  });
});
