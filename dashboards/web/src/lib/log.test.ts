import { describe, expect, it } from 'vitest';
import { LOG_PAGE, type LogLineView } from './api';
import { logReader, MOST_LINES } from './log';

const line = (id: number): LogLineView => ({ id, attempt: 1, at_ms: id, level: 'info', text: `line ${id}` });

/** A log that can grow, and the places it was asked from. */
function growingLog(n: number) {
  const log = Array.from({ length: n }, (_, index) => line(index + 1));
  const asked: number[] = [];
  const page = async (after: number) => {
    asked.push(after);
    return { lines: log.filter(({ id }) => id > after).slice(0, LOG_PAGE) };
  };
  return { log, asked, page };
}

describe('the end of a log', () => {
  it('is whole where the log is short', async () => {
    const { page } = growingLog(3);
    expect(await logReader(page)()).toEqual({ lines: [line(1), line(2), line(3)], nLeftOut: 0 });
    expect(await logReader(growingLog(0).page)()).toEqual({ lines: [], nLeftOut: 0 });
  });
  it('has the newest lines of many pages and counts the others', async () => {
    const n = 2 * LOG_PAGE + 5;
    const { asked, page } = growingLog(n);
    const end = await logReader(page)();
    expect(asked).toEqual([0, LOG_PAGE, 2 * LOG_PAGE]);
    expect(end.lines.length).toBe(MOST_LINES);
    expect(end.lines.at(-1)?.id).toBe(n);
    expect(end.nLeftOut).toBe(n - MOST_LINES);
  });
  it('asks only for what is new', async () => {
    const { log, asked, page } = growingLog(MOST_LINES);
    const read = logReader(page);
    await read();
    log.push(line(MOST_LINES + 1));
    const end = await read();
    expect(asked).toEqual([0, MOST_LINES]);
    expect(end.nLeftOut).toBe(1);
    expect(end.lines[0]?.id).toBe(2);
  });
  it('has no line twice when it is read twice at a time', async () => {
    const read = logReader(growingLog(3).page);
    const [, end] = await Promise.all([read(), read()]);
    expect(end.lines.map(({ id }) => id)).toEqual([1, 2, 3]);
  });
  it('goes on where a page could not be read', async () => {
    const { page } = growingLog(LOG_PAGE + 1);
    let isAway = true;
    const read = logReader((after) => (isAway && after > 0 ? Promise.reject(new Error('away')) : page(after)));
    await expect(read()).rejects.toThrow('away');
    isAway = false;
    expect((await read()).nLeftOut).toBe(LOG_PAGE + 1 - MOST_LINES);
  });
});
