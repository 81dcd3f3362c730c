import { describe, expect, it } from 'vitest';
import type { FitReport } from './api';
import { byText, methodsOf, scalingMarks } from './scaling';

const observation = (name: string, isHeldOut: boolean) => ({
  run_id: 'r_1', name, step: 10, parameters: 1e5, tokens: 1e6, flops: 1e12, loss_nats: 4, is_held_out: isHeldOut,
});
const fit = (method: string) => ({
  method, formulas: [], coefficients: {}, n_observations: 1, n_runs: 1, residual_rms_log: null,
  curve: [{ flops: 1e12, loss_nats: 4.1, low: 4, high: null }], points: [], dropped: [], warnings: [],
});
const report = {
  groups: [
    { group: 'tnl', observations: [observation('tnl-s1', false), observation('tnl-s2', true)], fits: [fit('envelope'), fit('chinchilla')], held_out: [] },
  ],
} as unknown as FitReport;

describe('marks of the scaling plot', () => {
  it('keeps held-out points apart and draws one method’s curve', () => {
    const marks = scalingMarks(report, 'envelope');
    expect(marks.measured.map((point) => point.isHeldOut)).toEqual([false, true]);
    expect(marks.curve).toEqual([{ group: 'tnl', flops: 1e12, loss: 4.1, low: 4, high: null }]);
  });
  it('knows the methods in order', () => {
    expect(methodsOf(report)).toEqual(['envelope', 'chinchilla']);
  });
});

describe('what is said of groups', () => {
  it('stands there once with every group, and not at all when it is empty', () => {
    const said = [
      { group: 'tnl', text: 'noisy' },
      { group: 'hgrn2', text: 'noisy' },
      { group: 'tnl', text: 'noisy' },
      { group: 'tnl', text: '' },
      { group: 'hgrn2', text: 'short' },
    ];
    expect(byText(said)).toEqual([
      { groups: ['tnl', 'hgrn2'], text: 'noisy' },
      { groups: ['hgrn2'], text: 'short' },
    ]);
  });
});
