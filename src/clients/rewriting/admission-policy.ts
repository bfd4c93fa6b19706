import { yamlLibrary } from '../../kit/yaml-text.ts';
import { DOCKER_HUB, dockerHubNames } from '../../oci/known-registries.ts';
import { patternExpression } from '../../oci/names.ts';
import { authority, type ClientFacts } from '../facts.ts';
import { placeOf } from '../rewrite.ts';

/** Kubernetes 1.36 has `v1`; 1.34 and 1.35 have `v1beta1`, behind the feature gate MutatingAdmissionPolicy. */
export const POLICY_VERSIONS = ['v1', 'v1beta1'] as const;
export type PolicyVersion = (typeof POLICY_VERSIONS)[number];

/** The cluster's own: a gateway that runs in the cluster must not be what its network and DNS wait for. */
export const EXCLUDED_NAMESPACES = ['kube-system', 'kube-public', 'kube-node-lease'] as const;

const NAME = 'registry-gateway';
const GROUP = 'admissionregistration.k8s.io';
/** Lists of a pod that name images. */
const LISTS = ['containers', 'initContainers', 'ephemeralContainers'] as const;

/**
 * A MutatingAdmissionPolicy with its binding, by which a cluster's API server itself writes images of new pods through this gateway: what
 * `rewriteReference` does, in CEL. Pods that exist stay, since another image would restart their containers.
 */
export function admissionPolicy(facts: ClientFacts, version: PolicyVersion, excluded: readonly string[]): string {
  const { stringify } = yamlLibrary();
  const places = placesOf(facts);
  const left = facts.registries.filter((registry) => !(registry in places));
  const policy = {
    apiVersion: `${GROUP}/${version}`,
    kind: 'MutatingAdmissionPolicy',
    metadata: { name: NAME },
    spec: {
      matchConstraints: {
        resourceRules: [
          { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] },
          { apiGroups: [''], apiVersions: ['v1'], operations: ['UPDATE'], resources: ['pods/ephemeralcontainers'] },
        ],
      },
      // A pod that is started from the registry itself is better than none.
      failurePolicy: 'Ignore',
      // Again after those that add containers.
      reinvocationPolicy: 'IfNeeded',
      variables: [
        { name: 'places', expression: celMap(places) },
        ...LISTS.map((list) => ({ name: list, expression: listExpression(list, facts) })),
      ],
      mutations: LISTS.map((list) => ({
        patchType: 'ApplyConfiguration',
        applyConfiguration: { expression: mutation(list) },
      })),
    },
  };
  const binding = {
    apiVersion: `${GROUP}/${version}`,
    kind: 'MutatingAdmissionPolicyBinding',
    metadata: { name: NAME },
    spec: {
      policyName: NAME,
      ...(excluded.length === 0
        ? {}
        : {
            matchResources: {
              namespaceSelector: {
                matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [...excluded] }],
              },
            },
          }),
    },
  };
  const options = { lineWidth: 0 };
  return `${heading(facts, version, left)}${stringify(policy, options)}---\n${stringify(binding, options)}`;
}

function heading(facts: ClientFacts, version: PolicyVersion, left: readonly string[]): string {
  const lines = [
    `Images of new pods come through ${authority(facts)}: kubectl apply -f this file.`,
    version === 'v1'
      ? 'For Kubernetes 1.36 and later; 1.34 and 1.35 want v1beta1, and kube-apiserver the feature gate MutatingAdmissionPolicy.'
      : 'For Kubernetes 1.34 and 1.35, where kube-apiserver has --feature-gates=MutatingAdmissionPolicy=true and --runtime-config=admissionregistration.k8s.io/v1beta1=true.',
    'A name under the gateway has no other way: where it is gone, such pods wait. As a mirror (gateway client containerd) nodes go on to the registries.',
    ...(facts.ca === null
      ? []
      : ['Nodes have to trust the certificate that signs for the gateway: gateway client containerd.']),
    ...(facts.credentials
      ? ['The gateway asks for credentials: pods need an imagePullSecret for each of its hosts.']
      : []),
    ...left.map((registry) => `Not covered: ${registry}, which has a port and no alias.`),
  ];
  return lines.map((line) => `# ${line}\n`).join('');
}

/** By the host that images name, what stands there through the gateway; Docker Hub under all of its names. */
function placesOf(facts: ClientFacts): Record<string, string> {
  const places: Record<string, string> = {};
  for (const registry of facts.registries) {
    const place = placeOf(registry, facts);
    if (place === null) continue;
    for (const name of registry === DOCKER_HUB ? dockerHubNames() : [registry]) places[name] = place.prefix;
  }
  return places;
}

/** The containers of one list whose image is to change: each `{name, image}`. Kubernetes' CEL wants the values of a map to be of one type: strings. */
function listExpression(list: (typeof LISTS)[number], facts: ClientFacts): string {
  const known = facts.patterns.map((pattern) => `c.host.matches(${cel(patternExpression(pattern).source)})`);
  const covered = ['c.host in variables.places', ...known].join(' || ');
  const place =
    known.length === 0
      ? 'variables.places[c.host]'
      : `(c.host in variables.places ? variables.places[c.host] : ${cel(`${authority(facts)}/`)} + c.host)`;
  const hub = cel(placeOf(DOCKER_HUB, facts)?.prefix ?? '');
  // Of a pod that runs, only ephemeral containers that it does not have yet may be written.
  const fresh =
    list === 'ephemeralContainers'
      ? 'request.operation == "CREATE" || !has(oldObject.spec.ephemeralContainers) || !oldObject.spec.ephemeralContainers.exists(o, o.name == c.name)'
      : 'request.operation == "CREATE"';
  return `has(object.spec.${list}) ? object.spec.${list}
  .filter(c, has(c.image) && (${fresh}))
  .map(c, {"name": string(c.name), "image": string(c.image), "first": string(c.image).matches("^(localhost|[^/]*[.:][^/]*)/") ? string(c.image).split("/")[0] : ""})
  .map(c, {"name": c.name, "host": c.first == "" ? ${cel(DOCKER_HUB)} : c.first.lowerAscii(), "rest": c.first == "" ? c.image : c.image.substring(size(c.first) + 1)})
  .filter(c, ${covered})
  .map(c, {"name": c.name, "place": string(${place}), "rest": c.rest})
  .map(c, {"name": c.name, "image": c.place + "/" + (c.place == ${hub} && !c.rest.contains("/") ? "library/" : "") + c.rest})
  : []
`;
}

/** Only what has changed is named, so that everything else of the pod stays. */
function mutation(list: (typeof LISTS)[number]): string {
  const containers = `variables.${list}.map(c, Object.spec.${list}{name: c.name, image: c.image})`;
  return `Object{spec: Object.spec{?${list}: size(variables.${list}) > 0 ? optional.of(${containers}) : optional.none()}}\n`;
}

function celMap(map: Readonly<Record<string, string>>): string {
  const entries = Object.entries(map).map(([key, value]) => `  ${cel(key)}: ${cel(value)}`);
  return `{\n${entries.join(',\n')}\n}\n`;
}

/** A JSON string is a CEL string for whatever hosts and patterns have. */
function cel(text: string): string {
  return JSON.stringify(text);
}
