import { afterEach, describe, expect, it, vi } from 'vitest';
import { api, TokenNeeded } from './api';

const answer = (body: string, status = 500) => vi.stubGlobal('fetch', vi.fn(async () => new Response(body, { status })));

afterEach(() => {
  vi.unstubAllGlobals();
});

describe('an answer that is no success', () => {
  it('says what the coordinator said', async () => {
    answer('{"code":"internal","message":"the disk is full"}');
    await expect(api.workers()).rejects.toThrow('the disk is full');
  });
  it.each(['', 'null', '{}', '{"message":""}', '<html>'])('names the status where the body is %j', async (body) => {
    answer(body, 502);
    await expect(api.workers()).rejects.toThrow('the coordinator answered 502');
  });
  it('is told apart where a token is needed', async () => {
    answer('{}', 401);
    await expect(api.workers()).rejects.toBeInstanceOf(TokenNeeded);
  });
});

describe('a request', () => {
  it('is given up after a minute', async () => {
    const timeout = vi.spyOn(AbortSignal, 'timeout');
    answer('{}', 200);
    await api.workers();
    expect(timeout).toHaveBeenCalledWith(60_000);
    expect(fetch).toHaveBeenCalledWith('/api/v1/workers', expect.objectContaining({ signal: timeout.mock.results[0]?.value }));
  });
});
