import { describe, expect, it } from 'vitest';
import { metric } from './format';
import { labelDigits, logLabels, logSplits } from './ticks';

const labelled = (min: number, max: number): number[] => logLabels(logSplits(min, max)).filter((value) => value !== null);

describe('labels of a logarithmic axis', () => {
  it('are the powers of ten where many decades are in sight, on both sides of the last suffix', () => {
    expect(labelled(1e19, 9e23).map((value) => metric(value))).toEqual(['10.0E', '100E', '1.00e21', '1.00e22', '1.00e23']);
  });
  it('are at 1, 2 and 5 where fewer than about two decades are', () => {
    expect(labelled(3e6, 1.5e8)).toEqual([5e6, 1e7, 2e7, 5e7, 1e8]);
    expect(labelled(1, 9.9)).toEqual([1, 2, 5]);
  });
  it('are at every digit where those are few', () => {
    expect(labelled(2.5, 6.1)).toEqual([3, 4, 5, 6]);
    expect(labelled(2.5, 12)).toEqual([3, 4, 5, 6, 7, 8, 9, 10]);
  });
  it('are steps of one size where the range holds hardly a digit', () => {
    expect(labelled(3.12, 3.31)).toEqual([3.15, 3.2, 3.25, 3.3]);
    expect(labelled(1.0001e9, 1.0003e9)).toEqual([1.0001e9, 1.00015e9, 1.0002e9, 1.00025e9, 1.0003e9]);
  });
  it('are none on a range without a logarithm', () => {
    expect(labelled(0, 1)).toEqual([]);
    expect(labelled(NaN, 1)).toEqual([]);
    expect(labelled(2, 2)).toEqual([]);
  });
});

describe('the digits of labels', () => {
  it('are three where that tells them apart', () => {
    expect(labelDigits([1e6, null, 1e9, 1e12])).toBe(3);
    expect(labelDigits([0, 250, 500])).toBe(3);
    expect(labelDigits([])).toBe(3);
    expect(labelDigits([7])).toBe(3);
  });
  it('are more where labels differ later, the same for all of them', () => {
    expect(labelDigits([1e9, 1.0005e9, 1.001e9])).toBe(5);
    expect(labelDigits([12_000, 12_050, 12_100])).toBe(4);
  });
});
