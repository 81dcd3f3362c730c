import { describe, expect, it } from 'vitest';
import type { Curve } from './api';
import { align } from './curves';

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
