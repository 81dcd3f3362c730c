// Numbers for people. Pure.

/** The metric suffixes end here: beyond, numbers are written as powers of ten. */
const BEYOND_SUFFIXES = 1e21;

const SUFFIXES: [number, string][] = [
  [1e18, 'E'],
  [1e15, 'P'],
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
];

/**
 * `12_345_678` as `12.3M`: three digits unless told otherwise and a metric suffix; from 1e21 on as
 * `5.76e23`.
 */
export function metric(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  // 999,950 would round to 1000k: it belongs to the next suffix.
  const roundsUp = 1 - 0.5 / 10 ** digits;
  if (size >= BEYOND_SUFFIXES * roundsUp) return power(value, digits - 1);
  for (const [scale, suffix] of SUFFIXES) {
    if (size >= scale * roundsUp) return (value / scale).toPrecision(digits) + suffix;
  }
  return Number.isInteger(value) ? String(value) : value.toPrecision(digits);
}

/** A power of ten as the command line writes it, without a plus sign: `5.76e23`. */
function power(value: number, digits: number): string {
  return value.toExponential(digits).replace('e+', 'e');
}

/**
 * Four significant digits unless told otherwise, without trailing zeros, with a metric suffix:
 * `52.43M`, `0.5`, `3e-5`.
 */
export function significant(value: number, digits = 4): string {
  const rounded = Number(value.toPrecision(digits));
  const size = Math.abs(rounded);
  const [scale, suffix] = SUFFIXES.find(([least]) => size >= least) ?? [1, ''];
  if (size >= BEYOND_SUFFIXES || (size !== 0 && size < 1e-3)) {
    return power(rounded, digits - 1).replace(/\.?0+e/, 'e');
  }
  return String(Number((rounded / scale).toPrecision(digits))) + suffix;
}

/** A double holds no more for certain. */
const MOST_DIGITS = 15;

/** The fewest significant digits, three or more, that say a value to a hundredth of a step. */
export function digitsFor(value: number, step: number): number {
  let digits = 3;
  while (digits < MOST_DIGITS && Math.abs(Number(value.toPrecision(digits)) - value) > step / 100) digits += 1;
  return digits;
}

/** A value of a series as its name asks: losses with their decimals, the rest as `significant`. */
export function reading(series: string, value: number): string {
  return series.endsWith('_nats') ? loss(value) : significant(value);
}

/** A loss in nats with four decimals. */
export function loss(value: number | null | undefined): string {
  return value === null || value === undefined ? '–' : value.toFixed(4);
}

/** Three significant digits, without an exponent where that reads well. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return value.toPrecision(3);
}

/** The decimals of a share in per cent: small ones have one, tiny ones two, of either sign. */
function decimals(share: number): number {
  const size = Math.abs(share);
  if (size === 0 || size >= 0.1) return 0;
  return size < 0.001 ? 2 : 1;
}

/** A share as a percentage, rounded. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(decimals(share))} %`;
}

/** How much is done, as a percentage that is `100 %` only when all of it is. */
export function progress(share: number): string {
  if (share >= 1) return '100 %';
  const scale = 10 ** decimals(share);
  // 0.29 · 100 is a little below 29: what is only rounding must not take one off.
  const floored = Math.floor(share * 100 * scale + 1e-9) / scale;
  return `${Math.min(99, floored).toFixed(decimals(share))} %`;
}

/** Seconds as `3 min 20 s`: the two largest units. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  const whole = Math.max(0, Math.round(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ');
}

/** A time as a local date and time. */
export function moment(at: number | null | undefined): string {
  return at ? new Date(at).toLocaleString() : '–';
}

/** Bytes with a binary suffix. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  if (unit === 0) return `${count} B`;
  // From here on three digits would be written with an exponent.
  const text = size < 999.5 ? size.toPrecision(3) : size.toFixed(0);
  return `${text} ${units[unit]}`;
}
