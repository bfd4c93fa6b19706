import type { LoggedRequest, RequestKind } from './log.ts';

export interface ParsedPath {
  readonly kind: RequestKind;
  readonly repository: string | undefined;
  readonly reference: string | undefined;
}

export function parsePath(path: string): ParsedPath {
  if (path === '/token') return { kind: 'token', repository: undefined, reference: undefined };
  if (path === '/v2/' || path === '/v2') return { kind: 'ping', repository: undefined, reference: undefined };
  const relative = /^\/artifacts-downloads\/([^/]+)$/.exec(path);
  if (relative !== null) return { kind: 'cdn', repository: undefined, reference: relative[1] };
  const match = /^\/v2\/(.+)\/(manifests|blobs|tags|referrers)\/([^/]+)$/.exec(path);
  if (match !== null) {
    const kind = ({ manifests: 'manifest', blobs: 'blob', tags: 'tags', referrers: 'referrers' } as const)[
      match[2] as 'manifests'
    ];
    return { kind, repository: match[1], reference: decodeURIComponent(match[3] ?? '') };
  }
  return { kind: 'other', repository: undefined, reference: undefined };
}

export function parseRange(header: string | undefined): LoggedRequest['range'] {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? '');
  if (match === null) return undefined;
  return { from: Number(match[1]), to: match[2] === '' ? undefined : Number(match[2]) + 1 };
}
