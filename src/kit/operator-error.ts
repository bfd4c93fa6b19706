/** One kind of error that an operator can meet. */
interface OperatorErrorEntry {
  /** What it means, whatever the case at hand. */
  readonly meaning: string;
  /** The general next step, used where the code that fails knows no better one. */
  readonly next: string;
  /** Bad usage (the command exits 2); everything else is a refusal or a failure (it exits 1). */
  readonly usage: boolean;
}

/**
 * The catalogue of what an operator (a person at the command line, or reading the log) can be told, as src/oci/errors.ts is the clients'.
 * The codes are for scripts: they do not change. deploy/ERRORS.md shows the catalogue, and test/unit/kit/operator-error.test.ts holds it to that.
 */
export const OPERATOR_ERRORS = {
  // Configuration and the data directory
  CONFIG_INVALID: usage(
    'the configuration has values or keys that are not allowed; the message lists each with its place',
    'correct them and start again; every key is described in the README under Configuration',
  ),
  CONFIG_UNREADABLE: usage(
    'the configuration file cannot be read',
    'check the path given with --config or GATEWAY_CONFIG, and its permissions',
  ),
  YAML_INVALID: usage(
    'a YAML file has syntax errors, or rows that are not valid; the message lists each with its line',
    'correct the file; text with : [ ] { } # or * in it is written in quotes',
  ),
  DATA_DIR_TOO_LONG: usage(
    'the path of the data directory is too long for a Unix socket in it',
    'choose a shorter data directory: dataDir or GATEWAY_DATA_DIR',
  ),
  DATA_DIR_UNUSABLE: failure(
    'the data directory cannot be locked',
    'check that it is writable by this user and on a local disk',
  ),
  DATA_DIR_EXPOSED: failure(
    'everybody on the machine can write into the data directory, and so replace keys and databases',
    'give the gateway a directory of its own, or let its owner take that away: chmod o-w',
  ),
  FILE_LINKED: failure(
    'where the gateway keeps a file of its own there is a link, or something else that is no file',
    'put the file itself there; to keep data elsewhere, set dataDir',
  ),
  DATA_DIR_IN_USE: failure(
    'another process uses the data directory; the message says which',
    'stop it first, or give this one another directory with --data-dir',
  ),
  DATA_DIR_HELD: failure(
    'a gateway already answers on the admin socket of the data directory',
    'end it first, or give this one a data directory of its own with --data-dir',
  ),
  DATABASE_NEWER: failure(
    'the database was written by a newer version of this program',
    'start the newer version again, or restore a backup from before the update: gateway restore FILE --force',
  ),
  BACKUP_FAILED: failure(
    'no backup could be made; before an update of the database, it is then left as it is',
    'make room on the disk, and try again',
  ),
  BACKUP_EXISTS: failure(
    'a file of that name is there already, and was left as it is',
    'give another name, or replace it with --force',
  ),
  BACKUP_UNWRITABLE: failure(
    'the backup cannot be written where it was to go; nothing of it is left there',
    'check that the directory is there, is writable by this user and has room',
  ),
  BACKUP_INVALID: failure(
    'what was given is no backup, or not whole; nothing was restored',
    'give a file that gateway backup made, or a backup-….db of the data directory',
  ),
  BACKUP_NEWER: failure(
    'the backup was made by a newer version of this program; nothing was restored',
    'restore it with that version or a later one',
  ),
  RESTORE_REFUSED: failure(
    'the data directory is not empty, and was left as it is',
    'restore into another directory (--data-dir), or replace what is there with --force: it is kept aside then',
  ),
  RESTORE_FAILED: failure(
    'a backup could not be restored; what was there is there',
    'check that the data directory is writable by this user and has room, and restore again',
  ),
  DATABASE_LOCKED: failure(
    'another program has the database open',
    'end that program, or let it finish, and start again',
  ),
  DATABASE_DAMAGED: failure('the database is damaged', 'restore it from a copy, or move it away to start anew'),
  DATABASE_UNUSABLE: failure(
    'the database cannot be opened or written',
    'check that the data directory is writable by this user, has free space, and is on a local disk',
  ),
  DATABASE_UNREACHABLE: failure(
    'the shared database cannot be reached just now; what needs it waits or fails, pulls go on',
    'see that it runs and that this machine reaches it; a gateway that runs tries again by itself',
  ),
  DATABASE_REFUSED: failure(
    'the shared database refuses this gateway; the message has its reason',
    'check the URL of the database, the password, and the rights of its user',
  ),

  // What several gateways share
  STATE_MOVED: failure(
    'the state of the data directory was moved into a database that several gateways share; what is left here is older',
    'name that database (database, GATEWAY_DATABASE), or bring the state back: gateway migrate --to sqlite',
  ),
  MIGRATE_REFUSED: failure(
    'a state was not moved; the message says why, and nothing was changed',
    'stop the gateways that run on it, and give a place that has no state of its own',
  ),
  SECRET_FILE_INVALID: usage(
    'the file of keys that a shared database needs (secretFile) cannot be read, may be written by everybody, or has a line that is no key',
    'write one key a line, 32 bytes in base64 or hex (openssl rand -base64 32) or a passphrase of 16 characters at least, in a file that nobody else can read: chmod 600 FILE',
  ),
  SECRET_KEY_MISSING: failure(
    'something in the shared database is encrypted under a key that this gateway does not have',
    'give every gateway of a database the same keys: copy the line that is missing into its secretFile, and start it again',
  ),
  SECRET_DAMAGED: failure(
    'something in the shared database cannot be decrypted although its key is known: it was changed there',
    'restore the database from a copy; a password is set anew by gateway registry set, a certificate by gateway cert renew',
  ),

  // The gateway and its commands
  LISTEN_FAILED: failure(
    "an address cannot be listened on; the message has the system's reason",
    'free the port, or choose another with the key that the message names',
  ),
  ADMIN_SOCKET: failure(
    'a file that is no socket is where the admin socket belongs',
    'move that file away: the gateway listens there for its own commands',
  ),
  ADMIN_DENIED: failure(
    'the admin socket belongs to another user',
    'run the command as the user that the gateway runs as, or as root',
  ),
  GATEWAY_ENDING: failure('the gateway was ending while the command ran', 'run the command again when it is up'),
  GATEWAY_GONE: failure(
    'the gateway ended before it had finished the command',
    'see its log; what it had stored it still has: run the command again when it is up',
  ),
  NO_GATEWAY: failure(
    'no gateway was found that the command could act on, nor a data directory; the message says where it was looked for',
    'name the directory of the gateway that is meant: --data-dir DIR or GATEWAY_DATA_DIR; a new gateway is made by: gateway serve',
  ),
  NOT_RUNNING: failure(
    'the command needs a running gateway, and none runs on the data directory',
    'start it: gateway serve',
  ),
  REGISTRY_UNUSABLE: failure(
    'a registry was put into the table, and nothing can be pulled from it as it is now; the message says what was seen',
    'correct it with gateway registry set; --no-check leaves out the trial',
  ),
  NOT_SERVED: failure(
    "what was changed is stored, but the gateway's own listener does not serve it as it should",
    'see the log of the gateway; gateway doctor looks at its ports and certificates',
  ),
  STOPPED: failure(
    'the command was stopped (Ctrl-C, SIGTERM) before it was done',
    'run it again; what it had stored is kept',
  ),
  OPERATION_UNKNOWN: failure(
    'the gateway that runs does not know the operation',
    'the command and the gateway are of different versions: restart the gateway',
  ),
  INTERNAL: failure(
    "an unexpected failure, the gateway's own fault",
    'see its log (GATEWAY_LOG_LEVEL=debug shows where), and report it',
  ),

  // Input of commands
  INPUT_INVALID: usage(
    'an argument or option is missing or not valid',
    'gateway --help lists the commands and what they take',
  ),
  ANSWER_NEEDED: usage(
    'the command asks before it goes on, and nobody is at a terminal to answer',
    'say yes beforehand: --yes',
  ),
  DECLINED: failure(
    'the question whether to go on was not answered with yes',
    'run it again when it is meant; --yes does not ask',
  ),
  INPUT_UNREADABLE: usage('standard input cannot be read, or is too long', 'pipe in what the command asks for'),
  CLIENT_FILE_REFUSED: failure(
    "a client's configuration has something that the gateway's cannot be put beside, or cannot be read; nothing was changed",
    'correct the file, or write by hand what gateway client KIND prints',
  ),
  CLIENT_FILE_FAILED: failure(
    "a client's file cannot be read or written",
    'run the command as root (sudo), or as the user whose file it is',
  ),
  CLIENT_FILE_CHANGED: failure(
    'files were edited after the gateway was put into them, where its lines cannot be told from the others; nothing was taken back',
    'take the lines of the gateway out by hand, or put the kept file back, then undo again',
  ),
  CLIENT_LOGIN_MISSING: usage(
    'the gateway asks for credentials, and this kind of client has them in its files',
    "pipe a user's token in: --username NAME --password-stdin (gateway user add NAME prints one)",
  ),
  CLIENT_CHECK_FAILED: failure(
    'a client does not get images through the gateway as its files are',
    'the message says what failed; gateway client KIND --apply puts the files in place',
  ),
  GATEWAY_UNREACHABLE: failure(
    'the gateway that --gateway names does not answer as one',
    'check the address; where its certificate is signed by its own authority, give that with --ca FILE',
  ),
  IMAGE_INVALID: usage(
    'what was given is no name of an image',
    'write it as docker pull takes it: quay.io/org/app:1.2, or with @sha256:… in place of the tag',
  ),
  PLATFORM_INVALID: usage(
    'what was given is no platform',
    'write operating system and architecture: linux/amd64, linux/arm64, linux/arm/v7',
  ),
  IMAGE_UNAVAILABLE: failure(
    'an image, or a part of it, cannot be had from here; the message has the reason that a client would be given',
    'gateway doctor looks at the registries; gateway drill says what is missing',
  ),
  IMAGE_UNSUITABLE: failure(
    'an image cannot be kept in the form that was asked for; the message says why',
    'gateway save IMAGE -o FILE --format oci keeps whatever registries hold, except schema 1',
  ),
  IMAGE_DAMAGED: failure(
    'the content of an image is not what its manifest says: another digest, another size, or another number of layers',
    'ask whoever publishes it; where a registry was changed underway, gateway cache verify drops what is wrong here',
  ),
  SAVE_EXISTS: failure(
    'a file of that name is there already, and was left as it is',
    'give another name, or replace it with --force',
  ),
  SAVE_UNWRITABLE: failure(
    'the archive cannot be written where it was to go; what is there of it, as FILE.partial, is gone on with by the next run',
    'check that the directory is there, is writable by this user and has room, and run the same command again',
  ),
  PUSH_REFUSED: failure(
    'the registry that is pushed to does not let this user push there; the message quotes its reason',
    'log in as one who may: docker login HOST, or --username NAME --password-stdin',
  ),
  PUSH_UNSUPPORTED: failure(
    'what is pushed to takes no pushes: it is no registry, or one that is read only',
    'name a registry that takes pushes; this gateway itself is none',
  ),
  PUSH_FAILED: failure(
    'the registry that is pushed to cannot be reached, or failed; the message has its reason',
    'run the command again: what has arrived there whole is not sent twice',
  ),
  LOGIN_UNREADABLE: failure(
    "the files of docker login or podman login, or one of their credential helpers, do not give a registry's credentials",
    'log in again, or give them: --username NAME --password-stdin',
  ),
  SCHEDULE_INVALID: usage(
    'what was given is no schedule',
    "write five fields in UTC, as cron has them: --schedule '0 3 * * *' is each night at three",
  ),
  CACHE_OFF: failure('the cache keeps nothing', 'set cache.maxSize, then gateway reload'),
  PIN_NO_ROOM: failure(
    'what is to be pinned has no room in the cache',
    'raise cache.maxSize (pins may hold four fifths of it), free disk, or take other pins back: gateway warm ls',
  ),
  WARM_NOT_KEPT: failure(
    'content was fetched and could not be kept',
    'gateway cache stats and gateway doctor say how full cache and disk are',
  ),
  WARM_UNKNOWN: failure('an image is neither pinned nor on a schedule', 'gateway warm ls lists those that are'),
  FILE_UNREADABLE: usage('a file that was given cannot be read', 'check the path and its permissions'),
  USERNAME_MISSING: usage('a password was given without a user name', 'add --username NAME'),
  PASSWORD_MISSING: usage('a user name was given without a password', 'pipe the password in, with --password-stdin'),
  PASSWORD_EMPTY: usage(
    'nothing came on standard input where a password was expected',
    'pipe the password in: echo "$PASSWORD" | gateway … --password-stdin',
  ),

  // Moving in from another program
  IMPORT_NOTHING: failure(
    'nothing was found that could be taken over; the message says where was looked',
    'give the file or folder of the program that the gateway takes the place of',
  ),
  IMPORT_NOT_KEPT: failure('layers are to be taken over, and this gateway keeps nothing', 'set cache.maxSize'),
  IMPORT_RUNS: failure('another import takes layers over already', 'wait until it is done'),
  STORAGE_UNREADABLE: failure(
    "the storage of another registry is not there, or the gateway's user cannot read it",
    'give its root with --root, and let that user read it',
  ),

  // Aliases, registries and users
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

  // Certificates
  TLS_OFF: failure(
    'the gateway has no certificates: tls.mode is off',
    'look at the program in front of it that terminates TLS, or set tls.mode to acme or internal',
  ),
  HOST_INVALID: usage(
    'what was given is no host name and no alias',
    'give a host name or an alias; gateway cert ls lists those there are',
  ),
  HOST_UNKNOWN: failure(
    'the host is no host of this gateway',
    'gateway cert ls lists the hosts; gateway alias add makes one',
  ),
  CERTIFICATE_UNKNOWN: failure('no certificate is held for the host', 'gateway cert ls lists those there are'),
  CERTIFICATE_REFUSED: failure(
    'the CA refused the certificate, or could not be asked; the message quotes its reason',
    'correct what the message names; gateway cert explain HOST has everything, and when it is tried again',
  ),
  CERTIFICATE_WAITING: failure(
    'the certificate is not asked for before a time that the CA or a back-off sets',
    'wait until then, the gateway tries by itself; gateway cert explain HOST says why',
  ),
  CERTIFICATE_TAKEN_OVER: failure(
    'a node stood still or was cut off during an order, and another node of the fleet went on with it',
    'see how it goes there: gateway cert explain HOST',
  ),
  CERTIFICATE_IMPOSSIBLE: failure(
    'no public CA issues certificates for the host',
    'use a host name of a domain that you own',
  ),
  CERTIFICATE_IMPORTED: failure(
    'the host is covered by an imported certificate, which is not renewed',
    'import its successor: gateway cert import CERT KEY',
  ),
  CERTIFICATE_NOT_IMPORTED: failure(
    'there is no imported certificate of the host to be removed',
    'gateway cert ls lists the certificates and their issuers',
  ),
  CERTIFICATE_INVALID: failure(
    'a certificate or key that was imported cannot be used; the message says why',
    'give the whole chain and its private key, both in PEM form, valid now',
  ),
  INTERNAL_CA_DAMAGED: failure(
    'the key and the certificate of the local CA cannot be read or do not belong together',
    'restore both from a copy, or remove both: a new CA is made at the next start, and clients must trust that one',
  ),
  ACME_CA_FILE: usage(
    "the file with the CA's root certificate cannot be read",
    'check acme.issuers[].caFile, or GATEWAY_ACME_CA_FILE',
  ),
} satisfies Record<string, OperatorErrorEntry>;

export type OperatorErrorCode = keyof typeof OPERATOR_ERRORS;

/** What happened, as the message of an error, and what to do next. */
export class OperatorError extends Error {
  override readonly name = 'OperatorError';
  readonly code: OperatorErrorCode;
  readonly next: string;
  readonly usage: boolean;

  /** `next`: better advice than the catalogue's, which knows nothing of the case at hand. */
  constructor(
    code: OperatorErrorCode,
    message: string,
    options: { readonly next?: string | undefined; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const entry = OPERATOR_ERRORS[code];
    this.code = code;
    this.next = options.next ?? entry.next;
    this.usage = entry.usage;
  }

  /** An error as another process sent it, which may be of another version and know other codes: what it says is kept. */
  static received(sent: SentOperatorError): OperatorError {
    const { code, message, next, usage } = sent;
    const error = new OperatorError(
      Object.hasOwn(OPERATOR_ERRORS, code) ? (code as OperatorErrorCode) : 'INTERNAL',
      message,
      { next },
    );
    return Object.assign(error, { code, usage });
  }
}

/** An `OperatorError` as JSON. */
export interface SentOperatorError {
  readonly code: string;
  readonly message: string;
  readonly next?: string | undefined;
  readonly usage: boolean;
}

function usage(meaning: string, next: string): OperatorErrorEntry {
  return { meaning, next, usage: true };
}

function failure(meaning: string, next: string): OperatorErrorEntry {
  return { meaning, next, usage: false };
}
