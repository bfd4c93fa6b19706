import type { RewriteFacts } from './rewrite.ts';
import { rewriteDockerfile } from './rewriting/dockerfile.ts';
import { rewriteYaml } from './rewriting/yaml.ts';

/**
 * Image references in what people paste: a name, a command line, a Dockerfile, a manifest, a compose file or some lines of them. Files are read as
 * `gateway rewrite` reads them, all else line by line. What is a reference is decided by its place; whether it is a good one, by `rewriteReference`.
 */
export interface Pasted {
  /** In their order, each once. */
  readonly references: readonly string[];
  /** A command among it writes to a registry, which this gateway does not do: `docker push`. */
  readonly push: string | null;
}

/** Programs whose command lines have references. */
const PROGRAMS =
  /^(?:docker|podman|nerdctl|buildah|crictl|ctr|k3s|rke2|microk8s|skopeo|helm|crane|oras|regctl|cosign|kubectl|oc|trivy|grype|kind|minikube|ollama)(?:\.exe)?$/;
/** What these programs call writing to a registry. */
const WRITES = /^(?:push|mutate|append|attach)$/;
/** Words behind a program that only say which of its commands follows. */
const GROUPS =
  /^(?:buildx|imagetools|image|images|i|container|containers|c|ctr|crictl|kubectl|nerdctl|compose|load|artifact|manifest|chart|registry|repo|blob|tag)$/;
/** Commands that fetch no image by its name. */
const FETCHES_NONE =
  /^(?:build|login|logout|exec|logs|ps|stop|start|restart|rm|rmi|kill|cp|tag|import|load|up|down|version|info|network|volume)$/;
/** Commands whose first word that is no option is the image; what follows is the command inside. */
const RUNS = /^(?:run|create)$/;

/** Programs that look into the one image that they are given. */
const SCANNERS = /^(?:trivy|grype)$/;
/** Programs whose further words are files or registries to write to. */
const TAKES_ONE = /^(?:trivy|grype|crane|regctl|cosign|oras|ollama)$/;

/** Long options of `docker run` and its kin that stand alone; every other is followed by its value. */
const RUN_FLAGS =
  /^--(?:rm|init|privileged|read-only|detach|interactive|tty|quiet|publish-all|no-healthcheck|oom-kill-disable|sig-proxy|disable-content-trust|replace|systemd|tls-verify|no-hosts|rmi|help)$/;
/** A word of their short options: flags, and behind them perhaps one that takes a value, which is attached or the next word (`-dp 80:80`, `-p80:80`). */
const SHORT_FLAGS = /^-[ditPq]*(?:[^ditPq-](.*))?$/;
/** Options of commands that pull that are followed by a value; every other stands alone. */
const PULL_VALUES =
  /^--(?:platform|namespace|version|hosts-dir|user|creds|authfile|auth|cert-dir|os|arch|variant|annotation|name|repo|username|password|password-file|ca-file|cert-file|key-file|keyring|destination|untardir|output|format|address|timeout|snapshotter|label|host|context|config|log-level|policy|retry-times|src-creds|dest-creds|src-cert-dir|override-os|override-arch|key|pod-config|values|set|profile|image-repository)$|^-(?:n|o|u|d|f|H|c|l)$/;

interface Word {
  readonly text: string;
}

const TRANSPORT = /^(?:docker|oci|docker-image):\/\//;

/** Reads what was pasted, bounded by its caller. */
export function pastedReferences(pasted: string, facts: RewriteFacts): Pasted {
  // Full-width letters, signs and spaces as keyboards for Chinese and Japanese write them are those of ASCII (Unicode NFKC).
  const text = pasted.normalize('NFKC');
  const inFile = ofFile(text, facts);
  const { references, push } = inFile.length > 0 ? { references: inFile, push: null } : ofLines(text);
  // As Compose and shells put it in where nothing is set: the version that is pulled.
  const named = references.map((reference) => reference.replace(/\$\{\w+:?-([^${}]*)\}/g, '$1'));
  return { references: [...new Set(named.filter((reference) => reference !== ''))], push };
}

const INSTRUCTION = /^[ \t]*(?:FROM|ARG|COPY|ADD|RUN)[ \t]/m;
const FROM_ALONE = /^[ \t]*from[ \t]+(?:--\S+[ \t]+)*\S+(?:[ \t]+as[ \t]+\S+)?[ \t]*$/im;

/** Brackets of what is read as YAML. Far more than manifests of this length have; a reader of thousands in each other would take long. */
const MAX_BRACKETS = 300;

/** The images of a whole file, or of a part that can be read as one; empty where it is none. */
function ofFile(text: string, facts: RewriteFacts): string[] {
  const isDockerfile = INSTRUCTION.test(text) || FROM_ALONE.test(text);
  if (!isDockerfile && text.split(/[[{]/).length > MAX_BRACKETS) return [];
  const { found } = isDockerfile ? rewriteDockerfile(text, facts) : rewriteYaml(text, facts);
  if (found.length === 0 && isDockerfile && /\sscratch\b/i.test(text)) return ['scratch'];
  return found.map(({ rewriting, whole }) => whole ?? rewriting.from);
}

function ofLines(text: string): Pasted {
  const references: string[] = [];
  let push: string | null = null;
  for (const line of linesOf(text)) {
    const words = wordsOf(line);
    const command = commandOf(words);
    if (command === null) {
      references.push(...(ofManifest(line) ?? ofBareWords(words)));
      continue;
    }
    const verb = command.rest.find(({ text: word }) => !word.startsWith('-') && !GROUPS.test(word))?.text ?? '';
    if (WRITES.test(verb)) push ??= `${command.program} ${verb}`;
    else if (!FETCHES_NONE.test(verb)) references.push(...ofCommand(command));
  }
  return { references, push };
}

/** Lines without what only continues them, comments, prompts and Markdown's code marks; operators between quotes divide nothing. */
function linesOf(text: string): string[] {
  return text
    .replace(/[\\`][ \t]*\r?\n/g, ' ')
    .replace(/```\w*|`/g, ' ')
    .split(/\r?\n/)
    .flatMap((line) => line.match(/(?:"[^"]*"|'[^']*'|(?<!&)&(?!&)|[^;|&])+/g) ?? [])
    .map((line) => line.trim().replace(/^(?:[$%>]|PS [^>]*>|\S+[@:]\S*[$#])\s+/, ''))
    .filter((line) => line !== '' && !/^(?:#|\/\/)/.test(line));
}

/** The words of a line as a shell divides it, up to a comment. */
function wordsOf(line: string): Word[] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(?:[^\s"']|"[^"]*"|'[^']*'|["'])+/g)].map(
    ([whole, double, single]) => ({ text: double ?? single ?? whole.replace(/["']/g, '') }),
  );
  const comment = words.findIndex(({ text }) => text.startsWith('#'));
  return comment < 0 ? words : words.slice(0, comment);
}

interface CommandLine {
  readonly program: string;
  readonly rest: readonly Word[];
}

/** The program of a line and what follows it, behind `sudo` and variables; null where the line is no command that is known. */
function commandOf(words: readonly Word[]): CommandLine | null {
  const at = words.findIndex(({ text }) => !/^(?:sudo|doas|env|time|RUN|-\S*|[A-Za-z_]\w*=.*)$/.test(text));
  const program = words[at]?.text.split('/').at(-1) ?? '';
  return PROGRAMS.test(program) && words.length > at + 1 ? { program, rest: words.slice(at + 1) } : null;
}

function ofCommand({ program, rest }: CommandLine): string[] {
  const byTransport = rest.filter(({ text }) => TRANSPORT.test(text)).map(({ text }) => text);
  if (byTransport.length > 0) return program === 'skopeo' ? byTransport.slice(0, 1) : byTransport;
  if (program === 'helm') return [];
  if (/^(?:kubectl|oc)$/.test(program)) return ofKubectl(rest);
  const verb = rest.findIndex(({ text }, index) => isWord(rest, index) && !GROUPS.test(text) && !PROGRAMS.test(text));
  const runs = RUNS.test(rest[verb]?.text ?? '');
  const images: string[] = [];
  for (let index = SCANNERS.test(program) ? verb : verb + 1; index < rest.length; index++) {
    const { text } = rest[index] ?? { text: '' };
    if (text === '--') continue;
    if (text.startsWith('-')) {
      if (takesNext(text, runs, program)) index++;
    } else {
      images.push(text.replace(/^registry:/, ''));
      if (runs || TAKES_ONE.test(program)) break;
    }
  }
  return program === 'kind' || program === 'minikube' ? [] : images;
}

/** Whether a word is neither an option nor its value, before the command of a program: `ctr -n k8s.io images pull`. */
function isWord(words: readonly Word[], index: number): boolean {
  const before = words[index - 1]?.text ?? '';
  return !(words[index]?.text ?? '').startsWith('-') && !PULL_VALUES.test(before);
}

/** Whether the word behind an option is its value. */
function takesNext(option: string, runs: boolean, program: string): boolean {
  if (option.includes('=')) return false;
  if (!runs) return PULL_VALUES.test(option) || (option === '-a' && /^(?:ctr|crictl)$/.test(program));
  return option.startsWith('--') ? !RUN_FLAGS.test(option) : SHORT_FLAGS.exec(option)?.[1] === '';
}

/** `kubectl run x --image=nginx`, `kubectl set image deployment/x container=nginx`. */
function ofKubectl(rest: readonly Word[]): string[] {
  const texts = rest.map(({ text }) => text);
  const images = texts.flatMap((text, index) =>
    text === '--image' ? [texts[index + 1] ?? ''] : text.startsWith('--image=') ? [text.slice('--image='.length)] : [],
  );
  if (texts[0] !== 'set' || texts[1] !== 'image') return images;
  return texts.slice(2).flatMap((text) => /^[^-/=][^/=]*=(.+)$/.exec(text)?.[1] ?? []);
}

/** `image: nginx`, `- "image": "nginx",`, `Image = quay.io/org/app` (Quadlet); other keys have none. Null where the line is no key with a value. */
function ofManifest(line: string): string[] | null {
  const [, key, value] = /^(?:[-{]\s*)*["']?([\w.-]+)["']?\s*(?::\s|=\s?|:$)\s*(.*)$/.exec(line) ?? [];
  // An element of a list.
  if (key === undefined || value === undefined) return /^-\s/.test(line) ? [] : null;
  if (!/image$/i.test(key)) return [];
  return [/^["']?([^\s"',}]+)/.exec(value)?.[1] ?? ''];
}

/** Web addresses of registries' own sites, which people copy, and what they are about. */
const SITES: readonly (readonly [RegExp, string])[] = [
  [/^hub\.docker\.com\/_\//, ''],
  [/^hub\.docker\.com\/(?:r|layers|repository\/docker)\//, ''],
  [/^quay\.io\/repository\//, 'quay.io/'],
];

/** What a name with a registry, a tag or a digest looks like, in the middle of prose too. */
const SHAPED =
  /^(?=.*[/:@])[a-z0-9][a-z0-9._-]*(?::\d+(?=\/))?(?:\/[a-z0-9._-]+)*(?::[A-Za-z0-9_][\w.-]*)?(?:@[a-z0-9]+:[0-9a-f]+)?$/;

/** Names alone, or those in prose (an error's text, a sentence in any language) that have the shape of one. */
function ofBareWords(words: readonly Word[]): string[] {
  const names = words.map(({ text }) => {
    const address = /^https?:\/\/([^?#]+)/.exec(text)?.[1];
    if (address === undefined) return text;
    const site = SITES.find(([pattern]) => pattern.test(address));
    const name = site === undefined ? address : address.replace(site[0], site[1]);
    return name.replace(/\/(?:tags|general)?\/?$/, '');
  });
  // Letters of other scripts stand beside names without a space, and punctuation ends them.
  const parts = names
    .flatMap((name) => name.split(/[^\x20-\x7e]+/))
    .map((part) => part.replace(/^[^\w[{<$]+|[,.:;!?)]+$/g, ''));
  const shaped = parts.filter((part) => SHAPED.test(part));
  const isProse = names.length > 1 && names.some((name) => /[^a-z0-9._/:@,-]/.test(name) || /^[^a-z0-9]|:$/.test(name));
  return isProse && shaped.length > 0 ? shaped : parts;
}
