import { failure, type OperatorErrorEntry, usage } from './entry.ts';

/** Of images that commands warm, save or relay. */
export const IMAGE_ERRORS = {
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
} satisfies Record<string, OperatorErrorEntry>;
