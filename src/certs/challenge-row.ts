import type { AlpnChallenge, Challenge, DnsChallenge } from './challenges.ts';

/** The row of a challenge in a database: `type` and `id` are its key. */
export interface ChallengeRow {
  readonly type: Challenge['type'];
  /** The token of http-01, the host of tls-alpn-01, the name and value of dns-01. */
  readonly id: string;
  /** What else it has; of tls-alpn-01 with a private key. */
  readonly answer: string;
  readonly expires_at: number;
}

/** A challenge as a database keeps it. */
export function challengeRow(challenge: Challenge): ChallengeRow {
  const { type, expiresAt } = challenge;
  switch (type) {
    case 'http-01':
      return { type, id: challenge.token, answer: challenge.keyAuthorization, expires_at: expiresAt };
    case 'tls-alpn-01': {
      const { host, chain, key } = challenge;
      return { type, id: host, answer: JSON.stringify({ chain, key }), expires_at: expiresAt };
    }
    case 'dns-01': {
      const { host, zone, provider, name, value } = challenge;
      return { type, id: `${name} ${value}`, answer: JSON.stringify({ host, zone, provider }), expires_at: expiresAt };
    }
  }
}

/** @param row as `challengeRow` made it */
export function challengeOf({ type, id, answer, expires_at: expiresAt }: ChallengeRow): Challenge {
  switch (type) {
    case 'http-01':
      return { type, token: id, keyAuthorization: answer, expiresAt };
    case 'tls-alpn-01':
      return { type, host: id, ...(JSON.parse(answer) as Pick<AlpnChallenge, 'chain' | 'key'>), expiresAt };
    case 'dns-01': {
      const space = id.indexOf(' ');
      const parts = JSON.parse(answer) as Pick<DnsChallenge, 'host' | 'zone' | 'provider'>;
      return { type, ...parts, name: id.slice(0, space), value: id.slice(space + 1), expiresAt };
    }
  }
}
