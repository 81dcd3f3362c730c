import { describe, expect, it } from 'vitest';
import type { FitReport } from './api';
import { byText, comparedAt, doubts, excludedRuns, heldOutRows, methodsOf, scalingMarks } from './scaling';

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

describe('a run that stands in several groups', () => {
  const heldOut = { run_id: 'r_1', name: 'tnl-s1', method: 'envelope' };
  const twice = {
    groups: ['tnl', 'hgrn2'].map((group) => ({ group, observations: [], fits: [], held_out: [heldOut, heldOut] })),
    excluded: ['failed', 'failed', 'not finished'].map((reason) => ({ run_id: 'r_2', name: 'tnl-s2', reason })),
  } as unknown as FitReport;

  it('has a row of its own in each', () => {
    const rows = heldOutRows(twice);
    expect(rows.map((row) => row.group)).toEqual(['tnl', 'tnl', 'hgrn2', 'hgrn2']);
    expect(new Set(rows.map((row) => row.key)).size).toBe(4);
  });
  it('is excluded once for each reason', () => {
    const runs = excludedRuns(twice);
    expect(runs.map((run) => run.reason)).toEqual(['failed', 'not finished']);
    expect(new Set(runs.map((run) => run.key)).size).toBe(2);
  });
});

describe('two groups beside each other', () => {
  const known = { status: 'identified', value: 1, low: 0.5, high: 2 };
  const at = (flops: number) => ({
    flops, loss_difference_nats: known, loss_ratio: known, flops_ratio: known, is_inside_both: true,
  });
  const pair = (method: string, names: string[], flops: number) => ({
    method, names, budgets: [at(flops)], crossover_flops: known,
  });

  it('stand in one table for each method and budget', () => {
    const comparisons = [
      pair('chinchilla', ['tnl', 'hgrn2'], 1e12),
      pair('chinchilla', ['tnl', 'llama'], 1e12),
      pair('power', ['tnl', 'hgrn2'], 1e12),
      pair('chinchilla', ['hgrn2', 'llama'], 2e12),
    ];
    const places = comparedAt({ groups: [], comparisons } as unknown as FitReport);
    expect(places.map(({ method, flops, rows }) => [method, flops, rows.length])).toEqual([
      ['chinchilla', 1e12, 2],
      ['power', 1e12, 1],
      ['chinchilla', 2e12, 1],
    ]);
    expect(places[0]?.rows[1]).toMatchObject({ first: 'tnl', second: 'llama', isBetter: null });
  });
  it('are doubted where they are warned of', () => {
    const comparisons = [{ ...pair('chinchilla', ['tnl', 'hgrn2'], 1e12), warnings: ['outside-data'] }];
    expect(doubts({ groups: [], comparisons } as unknown as FitReport)).toEqual([
      'tnl − hgrn2; chinchilla: outside-data',
    ]);
  });
  it('are not there in reports of before', () => {
    expect(comparedAt(report)).toEqual([]);
  });
});

describe('what to doubt', () => {
  it('is what is not identified, what was dropped and what is warned of, with its method', () => {
    const doubtful = {
      ...fit('isoflop'),
      coefficients: { a: { status: 'not_identified', reason: 'one budget' }, b: { status: 'identified', value: 1, low: 1, high: 1 } },
      dropped: [{ what: 'budget 1e18', reason: 'two sizes only' }],
      warnings: ['wide'],
    };
    const groups = [{ group: 'tnl', observations: [], held_out: [], fits: [doubtful] }];
    expect(doubts({ groups } as unknown as FitReport)).toEqual([
      'tnl; isoflop, a: one budget',
      'tnl; isoflop dropped budget 1e18: two sizes only',
      'tnl; isoflop: wide',
    ]);
  });
});
