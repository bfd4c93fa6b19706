/**
 * Image references in what people paste: a name, a command line, lines of a Dockerfile, of a manifest, of a compose file. What is a reference is
 * decided by its place alone; whether it is a good one, by `rewriteReference`.
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
  /^(?:image|images|i|container|containers|c|ctr|crictl|kubectl|nerdctl|compose|load|artifact|manifest|chart|registry|repo|blob|tag)$/;
/** Commands whose first word that is no option is the image; what follows is the command inside. */
const RUNS = /^(?:run|create)$/;

/** Programs that look into the one image that they are given. */
const SCANNERS = /^(?:trivy|grype)$/;
/** Programs whose further words are files or registries to write to. */
const TAKES_ONE = /^(?:trivy|grype|crane|regctl|cosign|oras|ollama)$/;

/** Options of `docker run` and its kin that stand alone; every other is followed by its value. */
const RUN_FLAGS =
  /^--(?:rm|init|privileged|read-only|detach|interactive|tty|quiet|publish-all|no-healthcheck|oom-kill-disable|sig-proxy|disable-content-trust|replace|systemd|tls-verify|no-hosts|rmi|help)$|^-[ditPq]+$/;
/** Options of commands that pull that are followed by a value; every other stands alone. */
const PULL_VALUES =
  /^--(?:platform|namespace|version|hosts-dir|user|creds|authfile|auth|cert-dir|os|arch|variant|annotation|name|repo|username|password|password-file|ca-file|cert-file|key-file|keyring|destination|untardir|output|format|address|timeout|snapshotter|label|host|context|config|log-level|policy|retry-times|src-creds|dest-creds|src-cert-dir|override-os|override-arch|key|pod-config|values|set|profile|image-repository)$|^-(?:n|o|a|u|d|f|H|c|l)$/;

interface Word {
  readonly text: string;
}

const TRANSPORT = /^(?:docker|oci|docker-image):\/\//;

/** Reads what was pasted, bounded by its caller. */
export function pastedReferences(text: string): Pasted {
  const stages = new Set<string>();
  const found: string[] = [];
  let push: string | null = null;
  for (const line of linesOf(text)) {
    const command = commandOf(wordsOf(line));
    if (command !== null) {
      const written = command.rest.find(({ text: word }) => !word.startsWith('-') && !GROUPS.test(word))?.text ?? '';
      if (WRITES.test(written)) push ??= `${command.program} ${written}`;
      else found.push(...ofCommand(command));
    } else {
      found.push(...(ofDockerfile(line, stages) ?? ofManifest(line) ?? ofBareWords(line)));
    }
  }
  return { references: [...new Set(found.filter((reference) => reference !== ''))], push };
}

/** Lines without what only continues them, comments and prompts. */
function linesOf(text: string): string[] {
  return text
    .replace(/\\\r?\n/g, ' ')
    .split(/\r?\n|&&|\|\||;|\|/)
    .map((line) => line.trim().replace(/^(?:[$%>]|PS [^>]*>|\S+[@:]\S*[$#])\s+/, ''))
    .filter((line) => line !== '' && !/^(?:#|\/\/)/.test(line));
}

function wordsOf(line: string): Word[] {
  return [...line.matchAll(/"([^"]*)"|'([^']*)'|(?:[^\s"']|"[^"]*"|'[^']*')+/g)].map(([whole, double, single]) => ({
    text: double ?? single ?? whole.replace(/["']/g, ''),
  }));
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
    if (text.startsWith('-')) {
      const alone = text.includes('=') || (runs ? RUN_FLAGS.test(text) || isAttached(text) : !PULL_VALUES.test(text));
      if (!alone) index++;
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

/** `-p80:80`, `-eX=1`: a short option with its value. */
function isAttached(text: string): boolean {
  return /^-[^-].+/.test(text);
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

/** `FROM --platform=$BUILDPLATFORM golang:1.22 AS build`, `COPY --from=nginx:1 …`; names of stages are no images. Null for any other line. */
function ofDockerfile(line: string, stages: Set<string>): string[] | null {
  const from = /^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?/i.exec(line);
  if (from !== null) {
    const [, image = '', stage] = from;
    const isStage = stages.has(image.toLowerCase());
    if (stage !== undefined) stages.add(stage.toLowerCase());
    return isStage ? [] : [image];
  }
  const copy = /^(?:COPY|ADD|RUN)\s.*?--(?:from=|mount=\S*\bfrom=)([^\s,]+)/i.exec(line);
  if (copy !== null)
    return stages.has((copy[1] ?? '').toLowerCase()) || /^\d+$/.test(copy[1] ?? '') ? [] : [copy[1] ?? ''];
  return /^(?:AS|ARG|ENV|COPY|ADD|RUN|CMD|ENTRYPOINT|WORKDIR|EXPOSE|LABEL|USER|VOLUME)\s/.test(line) ? [] : null;
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

/** Names alone; prose among them is what `rewriteReference` refuses. */
function ofBareWords(line: string): string[] {
  return wordsOf(line).map(({ text }) => {
    const address = /^https?:\/\/([^?#]+)/.exec(text)?.[1];
    if (address === undefined) return text.replace(/[,.]$/, '');
    const site = SITES.find(([pattern]) => pattern.test(address));
    const name = site === undefined ? address : address.replace(site[0], site[1]);
    return name.replace(/\/(?:tags|general)?\/?$/, '');
  });
}
