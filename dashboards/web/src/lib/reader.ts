// Reads again whenever it is asked to, and by itself after a failure. It holds no data.

/** The first pause after a failed read; each one after it is twice as long. */
export const FIRST_RETRY_MS = 1000;

export const LONGEST_RETRY_MS = 30_000;

export interface Reading<T> {
  read: () => Promise<T>;
  /** Milliseconds between the end of a read and the next one, however often it is asked for. */
  pause: number;
  got: (value: T) => void;
  /** Returns whether another try may help. */
  failed: (error: unknown) => boolean;
}

/** One read at a time: what is asked for meanwhile is one more read, after the pause. */
export function reader<T>({ read, pause, got, failed }: Reading<T>): { ask: () => void; stop: () => void } {
  let isOver = false;
  let isReading = false;
  let isAskedAgain = false;
  let retryPause = FIRST_RETRY_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let retryTimer: ReturnType<typeof setTimeout> | undefined;

  const ask = (): void => {
    if (isReading) {
      isAskedAgain = true;
      return;
    }
    isReading = true;
    isAskedAgain = false;
    clearTimeout(retryTimer);
    void read().then(succeed, fail).finally(rest);
  };
  const succeed = (value: T): void => {
    retryPause = FIRST_RETRY_MS;
    if (!isOver) got(value);
  };
  const fail = (error: unknown): void => {
    if (!failed(error) || isOver) return;
    retryTimer = setTimeout(ask, retryPause);
    retryPause = Math.min(2 * retryPause, LONGEST_RETRY_MS);
  };
  const rest = (): void => {
    if (isOver) return;
    timer = setTimeout(() => {
      isReading = false;
      if (isAskedAgain) ask();
    }, pause);
  };
  const stop = (): void => {
    isOver = true;
    clearTimeout(timer);
    clearTimeout(retryTimer);
  };
  return { ask, stop };
}
