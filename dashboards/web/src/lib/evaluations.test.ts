import { describe, expect, it } from 'vitest';
import type { EvaluationView } from './api';
import { evaluationOf } from './evaluations';

const evaluation = (id: string, step: number, attempt: number, n_tokens: number | null): EvaluationView => ({
  id, step, attempt, n_tokens, tokens: 1e6, flops_exact: 1e12, task: 'validation_loss', state: 'succeeded', value: 4,
});
const checkpoint = (step: number, attempt: number, is_data_point = true) => ({ step, attempt, is_data_point });

describe('the evaluation of a checkpoint', () => {
  const evaluations = [
    evaluation('other-step', 50, 2, 1e9),
    evaluation('first-attempt', 100, 1, 8e6),
    evaluation('waiting', 100, 2, null),
    evaluation('small', 100, 2, 1e5),
    evaluation('large', 100, 2, 1e6),
  ];

  it('is of its step and attempt, with the most tokens', () => {
    expect(evaluationOf(checkpoint(100, 2), evaluations)?.id).toBe('large');
    expect(evaluationOf(checkpoint(100, 1), evaluations)?.id).toBe('first-attempt');
  });
  it('is one of its step where its attempt has none', () => {
    expect(evaluationOf(checkpoint(100, 3), evaluations)?.id).toBe('first-attempt');
  });
  it('is one that waits where there is no other', () => {
    expect(evaluationOf(checkpoint(7, 1), [evaluation('waiting', 7, 1, null)])?.id).toBe('waiting');
  });
  it('is none for a rolling checkpoint or another step', () => {
    expect(evaluationOf(checkpoint(100, 2, false), evaluations)).toBeNull();
    expect(evaluationOf(checkpoint(200, 2), evaluations)).toBeNull();
  });
});
