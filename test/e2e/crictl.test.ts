import { afterAll, beforeAll, expect, it } from 'vitest';
import { CLIENTS_BED_NEEDS, type ClientsBed, DOMAIN, openClientsBed, pullAll } from '../support/clients-bed.ts';
import { type Containerd, startContainerd } from '../support/containerd.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { type Ran, runProgram } from '../support/processes.ts';
import { findNewer, findProgram } from '../support/program-list.ts';
import { describeWith, programPath } from '../support/programs.ts';

// A node of Kubernetes pulls by containerd's Kubernetes part, as crictl does, and by another way inside containerd than ctr. containerd 2.2 and
// later is built by hand (CONTRIBUTING.md, Tests).

const CERTS = '/etc/containerd/certs.d';
const image = buildImage('node', [200_000, 3_000]);
const [containerd, ctr] = [findNewer('containerd'), findNewer('ctr')];
const missing = [containerd, ctr, findProgram('crictl')].includes(null)
  ? ['crictl, and containerd and ctr 2.2 in GATEWAY_TEST_CLIENTS (CONTRIBUTING.md, Tests)']
  : [];

describeWith(
  [...CLIENTS_BED_NEEDS],
  'a node of Kubernetes as `gateway client containerd` configures it',
  () => {
    let bed: ClientsBed;
    let daemon: Containerd;
    showLogOfFailures(() => bed?.gateway);

    beforeAll(async () => {
      bed = await openClientsBed({ image, names: ['team/node', 'node'] });
      await bed.configure('containerd');
      daemon = await startContainerd({ containerd: containerd ?? '', ctr: ctr ?? '', within: bed.space, cri: CERTS });
    });

    afterAll(async () => {
      await daemon?.close();
      await bed?.close();
    });

    const crictl = (...args: string[]): Promise<Ran> => {
      const endpoint = `unix://${daemon.socket}`;
      const at = ['--config', '/dev/null', '--image-endpoint', endpoint, '--runtime-endpoint', endpoint];
      return runProgram({ command: programPath('crictl'), args: [...at, ...args], within: bed.space });
    };

    it('pulls unchanged names of six registries, none of which it can reach', async () => {
      const names = [...bed.unchanged.keys()].slice(0, 12);
      expect(new Set(names.map((name) => name.split('/')[0])).size).toBe(6);
      expect(await pullAll(names, (name) => crictl('pull', name)), daemon.log().slice(-2_000)).toEqual([]);
      const { stdout } = await crictl('images', '--output', 'json');
      for (const name of names) expect(stdout).toContain(`"${name}"`);
    });

    it('pulls by prefix, by alias host, by the mirror of an alias host, and by digest', async () => {
      for (const name of [
        `${DOMAIN}/quay.io/team/node:1`,
        `corp.${DOMAIN}/node:1`,
        'registry.corp:5000/node:1',
        `quay.io/team/node@${image.manifest.digest}`,
      ]) {
        const pulled = await crictl('pull', name);
        expect(pulled.code, `${name}\n${pulled.stderr}`).toBe(0);
      }
    });
  },
  missing,
);
