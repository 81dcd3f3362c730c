// Which evaluation is of which checkpoint. Pure.

import type { CheckpointView, EvaluationView } from './api';

/**
 * The evaluation to show beside a checkpoint: of its step and attempt, or of its step where its
 * own attempt has none; of several the one that measured the most tokens.
 */
export function evaluationOf(
  checkpoint: Pick<CheckpointView, 'step' | 'attempt' | 'is_data_point'>,
  evaluations: EvaluationView[],
): EvaluationView | null {
  if (!checkpoint.is_data_point) return null;
  const ofStep = evaluations.filter((one) => one.step === checkpoint.step);
  const ofAttempt = ofStep.filter((one) => one.attempt === checkpoint.attempt);
  // One that is not measured yet comes after all that are.
  const size = (one: EvaluationView): number => one.n_tokens ?? -1;
  const candidates = ofAttempt.length > 0 ? ofAttempt : ofStep;
  return candidates.reduce<EvaluationView | null>(
    (best, one) => (best === null || size(one) > size(best) ? one : best),
    null,
  );
}
