import { readBounded } from '../kit/bounded.ts';
import { StatusError } from './failures.ts';
import { retryAfterOf } from './headers.ts';
import type { Answer } from './request.ts';

/** An error body is a few hundred bytes. */
const ERROR_LIMIT = 64 * 1024;

/** Reads an answer that is a failure into an error. */
export async function statusError(answer: Answer, endpoint: URL): Promise<StatusError> {
  const code = await errorCode(answer);
  const { status, url } = answer;
  // A download host that refuses says nothing about the image: its signature expired, or it fails. Another registry behind a redirect does.
  const fromRegistry = url.origin === endpoint.origin || url.pathname.startsWith('/v2/');
  if (!fromRegistry && [400, 401, 403, 404, 410].includes(status)) {
    const reason = `the download host that it redirects to answered ${status}`;
    const error = new StatusError(502, url.host, undefined, reason);
    error.behind = status;
    return error;
  }
  const retryAfter = retryAfterOf(answer.headers);
  const error = new StatusError(status, url.host, retryAfter);
  error.code = code;
  return error;
}

/** `errors[0].code` of the body (distribution-spec, *Error Codes*). */
async function errorCode(answer: Answer): Promise<string | undefined> {
  try {
    const body = JSON.parse((await readBounded(answer.body, ERROR_LIMIT)).toString('utf8')) as {
      errors?: { code?: unknown }[];
    };
    const code = body.errors?.[0]?.code;
    return typeof code === 'string' ? code : undefined;
  } catch {
    // Not JSON, too long, or broken off: the status says enough.
    answer.body.destroy();
    return undefined;
  }
}
