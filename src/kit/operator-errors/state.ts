import { failure, type OperatorErrorEntry, usage } from './entry.ts';

/** Of the configuration, of what the gateway keeps, and of what several gateways share. */
export const STATE_ERRORS = {
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
} satisfies Record<string, OperatorErrorEntry>;
