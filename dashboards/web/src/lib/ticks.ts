// Where the ticks of an axis stand and how they are labelled. Pure.

import { digitsFor } from './format';

/** So many labels always have room. */
const FEW = 8;

/** Fewer labels than this do not tell where on the axis one is. */
const LEAST = 3;

/** `value` without the rounding of its arithmetic. */
const exact = (value: number): number => Number(value.toPrecision(12));

/** Multiples of a step of 1, 2 or 5 times a power of ten, about five of them. */
function linearSplits(min: number, max: number): number[] {
  const rough = (max - min) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((digit) => digit * power >= rough) ?? 10);
  const splits: number[] = [];
  for (let k = Math.ceil(min / step - 1e-9); k * step <= max + 1e-9 * step; k += 1) splits.push(exact(k * step));
  return splits;
}

/** The digits of every decade in sight; of less than a decade, multiples of one step. */
export function logSplits(min: number, max: number): number[] {
  if (!(min > 0 && max > min && Number.isFinite(max))) return [];
  const splits: number[] = [];
  const last = Math.floor(Math.log10(max));
  for (let power = Math.floor(Math.log10(min)); power <= last; power += 1) {
    for (let digit = 1; digit < 10; digit += 1) splits.push(Number(`${digit}e${power}`));
  }
  const seen = splits.filter((value) => value >= min * (1 - 1e-9) && value <= max * (1 + 1e-9));
  return seen.length < LEAST ? linearSplits(min, max) : seen;
}

/** Labels at powers of ten; at 1, 2 and 5 where those are not enough; at all splits where few are in sight. */
export function logLabels(splits: number[]): (number | null)[] {
  if (splits.length < FEW) return splits;
  const at = (digits: number[]): (number | null)[] =>
    splits.map((value) => {
      const leading = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
      return digits.some((digit) => Math.abs(leading - digit) < 1e-6) ? value : null;
    });
  const isEnough = (labels: (number | null)[]): boolean => labels.filter((label) => label !== null).length >= LEAST;
  return [at([1]), at([1, 2, 5])].find(isEnough) ?? splits;
}

/** The significant digits that tell each label from the next one. */
export function labelDigits(labels: (number | null)[]): number {
  const values = labels.filter((value) => value !== null);
  const step = (at: number): number =>
    Math.min(...[at - 1, at + 1].map((beside) => Math.abs((values[beside] ?? Infinity) - (values[at] ?? 0))));
  return Math.max(3, ...values.map((value, at) => (value === 0 ? 3 : digitsFor(value, step(at)))));
}
