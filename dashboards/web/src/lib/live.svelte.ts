// Data that follows the event stream: read once, then again whenever something changed, at most
// once in a while.

import { TokenNeeded, type EventView } from './api';

type Listener = (event: EventView | null) => void;

const listeners = new Set<Listener>();
let source: EventSource | null = null;

/** Whether the event stream is open, and whether the coordinator asks for its token. */
export const stream = $state({ isOpen: false, needsToken: false });

function open(): void {
  source = new EventSource('/api/v1/events');
  source.onopen = () => {
    stream.isOpen = true;
    // Whatever happened while it was closed: everybody reads again.
    for (const listener of listeners) listener(null);
  };
  source.onerror = () => {
    stream.isOpen = false;
  };
  source.onmessage = (message: MessageEvent<string>) => {
    const event = JSON.parse(message.data) as EventView;
    for (const listener of listeners) listener(event);
  };
  source.addEventListener('resync', () => {
    for (const listener of listeners) listener(null);
  });
}

export interface Live<T> {
  readonly value: T | null;
  readonly error: string | null;
}

/**
 * Reads now and after every event that `matters`, at least `pause` milliseconds apart. Call it
 * while a component is set up; it stops with the component. Whatever `read` depends on is
 * tracked, so a change of it reads again.
 */
export function live<T>(
  read: () => Promise<T>,
  pause = 1500,
  matters: (event: EventView) => boolean = () => true,
): Live<T> {
  const state = $state<{ value: T | null; error: string | null }>({ value: null, error: null });
  // Large series must not become deep proxies.
  let raw = $state.raw<T | null>(null);

  $effect(() => {
    let isOver = false;
    let isReading = false;
    let isAskedAgain = false;
    let timer: ReturnType<typeof setTimeout> | undefined;

    const refresh = (promise: Promise<T>): void => {
      isReading = true;
      isAskedAgain = false;
      promise
        .then(
          (value) => {
            if (isOver) return;
            raw = value;
            state.error = null;
          },
          (error: unknown) => {
            if (error instanceof TokenNeeded) stream.needsToken = true;
            if (!isOver) state.error = error instanceof Error ? error.message : String(error);
          },
        )
        .finally(() => {
          timer = setTimeout(() => {
            isReading = false;
            if (isAskedAgain && !isOver) refresh(read());
          }, pause);
        });
    };
    const onEvent: Listener = (event) => {
      if (event !== null && !matters(event)) return;
      if (isReading) isAskedAgain = true;
      else refresh(read());
    };

    refresh(read());
    listeners.add(onEvent);
    if (!source) open();
    return () => {
      isOver = true;
      clearTimeout(timer);
      listeners.delete(onEvent);
    };
  });

  return {
    get value() {
      return raw;
    },
    get error() {
      return state.error;
    },
  };
}
