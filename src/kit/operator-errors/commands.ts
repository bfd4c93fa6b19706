import { failure, type OperatorErrorEntry, usage } from './entry.ts';

/** Of the gateway as it runs, and of what commands are given. */
export const COMMAND_ERRORS = {
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
} satisfies Record<string, OperatorErrorEntry>;
