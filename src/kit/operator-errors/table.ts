import { failure, type OperatorErrorEntry, usage } from './entry.ts';

/** Of aliases, registries, their credentials, and users. */
export const TABLE_ERRORS = {
  LEADS_TO_ITSELF: failure(
    'a registry would be fetched from this gateway itself, round and round',
    'name the registry as image names have it, or the endpoint where its content really is',
  ),
  NAME_INVALID: usage(
    'the name of an alias is not valid',
    'use a label such as k8s-gcr, or a full host name such as hub.corp.example',
  ),
  ALIAS_TAKEN: failure(
    'the alias, or its host name, already stands for another registry',
    'choose another name, or remove that alias first: gateway alias rm NAME',
  ),
  ALIAS_UNKNOWN: failure('there is no such alias', 'list them with: gateway alias ls'),
  REGISTRY_INVALID: usage(
    'the host of a registry is not valid',
    'write it as image names start: quay.io, or registry.corp.example:5000',
  ),
  CA_INVALID: usage(
    'a file of authorities cannot be read, or has no certificate in PEM',
    'give a PEM file with the certificate of the authority',
  ),
  REGISTRY_UNKNOWN: failure(
    'the registry is not in the table',
    'list them with: gateway registry ls; add it with: gateway alias add NAME REGISTRY',
  ),
  REGISTRY_IN_USE: failure(
    'aliases stand for the registry, so it is not removed; the message names them',
    'remove them first: gateway alias rm NAME',
  ),
  ENDPOINT_INVALID: usage(
    'the URL of an endpoint is not valid',
    'write it like https://registry-1.docker.io or http://10.0.0.5:5000',
  ),
  REALM_INVALID: usage(
    "a host that may be sent a registry's credentials is not valid",
    'write the host alone, as in auth.example.com or auth.example.com:8443',
  ),
  PROXY_INVALID: usage(
    'the URL of a proxy is not valid',
    'write it like http://proxy.example:3128 or socks5h://127.0.0.1:1080',
  ),
  CREDENTIALS_INVALID: usage(
    'the credentials for a registry are not valid',
    'give the user name with --username and the password or token on standard input with --password-stdin',
  ),
  CREDENTIALS_UNKNOWN: failure(
    'the registry has no credentials of that name',
    'see what it has: gateway registry show HOST',
  ),
  CREDENTIALS_CONFLICT: failure(
    'two credentials of a registry would be for the same repositories',
    'one pattern has one account: take it from the other, or write a more exact one',
  ),
  USER_INVALID: usage(
    'the name of a user is not valid',
    'use up to 64 letters, digits and . _ @ -, starting with a letter or digit',
  ),
  USER_EXISTS: failure('there is a user of that name already', 'for a new token: gateway user rotate NAME'),
  USER_UNKNOWN: failure('there is no such user', 'list them with: gateway user ls'),
} satisfies Record<string, OperatorErrorEntry>;
