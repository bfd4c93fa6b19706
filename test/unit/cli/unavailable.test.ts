import { expect, test } from 'vitest';
import { unavailable } from '../../../src/cli/session.ts';
import { GATEWAY_GONE, SourceError } from '../../../src/images/image-source.ts';

test('a gateway that has ended meanwhile is told apart from an image that cannot be had', () => {
  const missing = new SourceError(404, 'MANIFEST_UNKNOWN', 'there is no docker.io/library/app:1');
  expect(unavailable(missing)).toMatchObject({ code: 'IMAGE_UNAVAILABLE', message: missing.message, cause: missing });
  expect(unavailable(new SourceError(503, GATEWAY_GONE, 'the gateway has ended'))).toMatchObject({
    code: 'GATEWAY_GONE',
  });
});
