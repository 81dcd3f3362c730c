// The end of a log, read page by page.

import { LOG_PAGE, type LogLineView } from './api';

/** Lines kept in memory: what a page still shows without a pause. */
export const MOST_LINES = 2000;

export interface LogEnd {
  /** The newest lines, the oldest first. */
  lines: LogLineView[];
  /** How many lines before them are left out. */
  nLeftOut: number;
}

/**
 * What reads a log to its end and keeps its newest lines. Lines never change, so it asks only for
 * those after the last one that it has.
 */
export function logReader(
  page: (after: number) => Promise<{ lines: LogLineView[] }>,
): () => Promise<LogEnd> {
  let end: LogEnd = { lines: [], nLeftOut: 0 };
  const last = (): number => end.lines.at(-1)?.id ?? 0;

  return async () => {
    for (;;) {
      const { lines } = await page(last());
      // Two readings at a time may be given the same lines.
      const before = last();
      const all = [...end.lines, ...lines.filter((line) => line.id > before)];
      const nCut = Math.max(0, all.length - MOST_LINES);
      end = { lines: all.slice(nCut), nLeftOut: end.nLeftOut + nCut };
      if (lines.length < LOG_PAGE) return end;
    }
  };
}
