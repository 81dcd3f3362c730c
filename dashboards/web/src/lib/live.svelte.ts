// Data that follows the event stream: read once, then again whenever something changed, at most
// once in a while.

import { TokenNeeded, type EventView } from './api';
import { reader } from './reader';
import { follow } from './reconnect';

type Listener = (event: EventView | null) => void;

const listeners = new Set<Listener>();
let isFollowing = false;

/** Whether the event stream is open, and whether the coordinator asks for its token. */
export const stream = $state({ isOpen: false, needsToken: false });

function tell(event: EventView | null): void {
  for (const listener of listeners) listener(event);
}

function open(): void {
  isFollowing = true;
  follow('/api/v1/events', {
    opened: () => {
      stream.isOpen = true;
      // Whatever happened while it was closed: everybody reads again.
      tell(null);
    },
    failed: (isClosed) => {
      stream.isOpen = false;
      // An event source does not say why it was refused; who reads learns it, a 401 above all.
      if (isClosed) tell(null);
    },
    message: (data) => tell(JSON.parse(data) as EventView),
    resync: () => tell(null),
    // Signing in loads the page anew.
    isWanted: () => !stream.needsToken,
  });
  // A hidden page may have slept, and its connection with it.
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') tell(null);
  });
}

export interface Live<T> {
  readonly value: T | null;
  readonly error: string | null;
}

/** Why what is shown is not what is there now: the first error among those that have a value. */
export function staleness(...all: Live<unknown>[]): string | null {
  return all.find(({ value, error }) => value !== null && error !== null)?.error ?? null;
}

/**
 * Reads now and after every event that `matters`, at least `pause` milliseconds apart, and again by
 * itself after a failure. Call it while a component is set up; it stops with the component.
 * Whatever `read` depends on is tracked, so a change of it reads again.
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
    const { ask, stop } = reader({
      read,
      pause,
      got: (value) => {
        raw = value;
        state.error = null;
      },
      failed: (error) => {
        const isTokenNeeded = error instanceof TokenNeeded;
        if (isTokenNeeded) stream.needsToken = true;
        if (!isOver) state.error = error instanceof Error ? error.message : String(error);
        return !isTokenNeeded;
      },
    });
    const onEvent: Listener = (event) => {
      if (event === null || matters(event)) ask();
    };

    ask();
    listeners.add(onEvent);
    if (!isFollowing) open();
    return () => {
      isOver = true;
      stop();
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
