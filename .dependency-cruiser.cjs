/**
 * The floors of the house, lowest first: a room imports from floors below its own and from nowhere else in src.
 * Everything below is generated from these two tables; README.md, *Architecture*, shows them as a picture.
 * A room is a folder of src, or a list of files that count as one.
 */
const FLOORS = [
  ['kit'],
  ['oci', 'config', 'telemetry'],
  ['aliases', 'certs', 'cache', 'upstream', 'access', 'policy', 'images', 'clients', 'cluster'],
  ['proxy', 'sqlite', 'postgres', 's3', 'acme', 'dns', 'warm'],
  ['edge', 'admin', 'workers'],
  ['server', 'dashboard'],
  [{ name: 'cli', files: ['main.ts'], folder: 'cli' }],
];

/** Packages that one room alone may import, so that another could take their place. */
const OWNED_PACKAGES = {
  'better-sqlite3': 'sqlite',
  pg: 'postgres',
  'acme-client': 'acme',
  undici: 'upstream',
  '@aws-sdk': 's3',
};

const rooms = FLOORS.flatMap((row, floor) => row.map((entry) => room(entry, floor)));

function room(entry, floor) {
  const { name, files = [], folder } = typeof entry === 'string' ? { name: entry, folder: entry } : entry;
  const paths = files.map((file) => `^src/${literally(file)}$`);
  if (folder !== undefined) paths.push(`^src/${literally(folder)}/`);
  return { name, floor, paths };
}

function literally(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

const belowRules = rooms.map(({ name, floor, paths }) => ({
  name: `${name}-looks-down-only`,
  comment: `${name} is on floor ${floor}: it imports from its own files and from lower floors`,
  severity: 'error',
  from: { path: paths },
  to: {
    path: '^src/',
    pathNot: [...paths, ...rooms.filter((other) => other.floor < floor).flatMap((other) => other.paths)],
  },
}));

const packageRules = Object.entries(OWNED_PACKAGES).map(([name, owner]) => ({
  name: `${name}-only-in-${owner}`,
  comment: `only src/${owner} imports ${name}`,
  severity: 'error',
  from: { path: '^src/', pathNot: `^src/${owner}/` },
  to: { path: `(^|node_modules/)(@types/)?${literally(name)}(/|$)` },
}));

module.exports = {
  forbidden: [
    ...belowRules,
    ...packageRules,
    {
      name: 'stores-are-chosen-in-one-file',
      comment:
        'only src/server/stores.ts names the implementations of the store ports, so that another database is one file away',
      severity: 'error',
      // Rooms on lower floors are held off by the floors.
      from: { path: '^src/(edge|admin|workers|server|cli)/', pathNot: '^src/server/stores\\.ts$' },
      to: { path: '^src/(sqlite|postgres|s3)/' },
    },
    {
      name: 'no-cycles',
      comment: 'files that import each other cannot be understood, tested or moved alone',
      severity: 'error',
      from: { path: '^src/' },
      to: { circular: true },
    },
    {
      name: 'src-stands-alone',
      comment: 'what is shipped imports no tests and no scripts',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|scripts)/' },
    },
    {
      name: 'no-dev-packages',
      comment: 'an installed gateway has no development dependencies',
      severity: 'error',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev'], pathNot: 'node_modules/@types/' },
    },
    {
      name: 'resolvable',
      comment: 'an import that leads nowhere',
      severity: 'error',
      from: { path: '^src/' },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    // Types count: a room that needs another's types knows that room.
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|coverage|data)/' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
  // For scripts/lib/floors.ts; dependency-cruiser does not read it.
  rooms,
};
