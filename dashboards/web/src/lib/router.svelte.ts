// The page that the address names. It holds no data.

export type Route =
  | { page: 'studies' }
  | { page: 'study'; study: string }
  | { page: 'run'; run: string }
  | { page: 'workers' }
  | { page: 'missing'; path: string };

/** The parts of a path as they are meant; null where a percent sign is not followed by a byte. */
function decoded(parts: string[]): string[] | null {
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return null;
  }
}

/** The page of a path, such as `/studies/demo`. */
export function parseRoute(path: string): Route {
  const parts = decoded(path.split('/').filter(Boolean));
  if (parts === null) return { page: 'missing', path };
  const [head, name] = parts;
  if (parts.length === 0 || (parts.length === 1 && head === 'studies')) return { page: 'studies' };
  if (parts.length === 2 && head === 'studies' && name) return { page: 'study', study: name };
  if (parts.length === 2 && head === 'runs' && name) return { page: 'run', run: name };
  if (parts.length === 1 && head === 'workers') return { page: 'workers' };
  return { page: 'missing', path };
}

let path = $state(globalThis.location?.pathname ?? '/');

export const router = {
  get route(): Route {
    return parseRoute(path);
  },
};

export function go(to: string): void {
  history.pushState(null, '', to);
  path = location.pathname;
  scrollTo(0, 0);
}

/** Follows links inside the application without loading the page again. */
export function startRouter(): () => void {
  const onPop = (): void => {
    path = location.pathname;
  };
  const onClick = (event: MouseEvent): void => {
    const link = (event.target as Element | null)?.closest('a');
    const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
    const isOurs = link?.origin === location.origin && !link.target && !link.pathname.startsWith('/api/');
    if (!link || !isPlain || !isOurs) return;
    event.preventDefault();
    go(link.pathname);
  };
  addEventListener('popstate', onPop);
  document.addEventListener('click', onClick);
  return () => {
    removeEventListener('popstate', onPop);
    document.removeEventListener('click', onClick);
  };
}
