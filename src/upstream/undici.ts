import { createRequire } from 'node:module';
import type { Agent as AgentType, buildConnector as ConnectorBuilder, Dispatcher } from 'undici';

const load = createRequire(import.meta.url);

/**
 * The parts of undici that this program uses, loaded by their files: its index also loads fetch, WebSocket, caches, mocks and the
 * modules of Node that they need, 15 MiB of resident memory that nothing here would touch.
 */
export type Agent = AgentType;
export const Agent = load('undici/lib/dispatcher/agent.js') as typeof AgentType;
export const buildConnector = load('undici/lib/core/connect.js') as typeof ConnectorBuilder;
export type Connector = ConnectorBuilder.connector;
export type ConnectOptions = ConnectorBuilder.Options;
export type ResponseData = Dispatcher.ResponseData;

// As its index does: what sends a request is no part of the dispatchers' own files.
const { prototype } = load('undici/lib/dispatcher/dispatcher.js') as typeof Dispatcher;
Object.assign(prototype, { request: load('undici/lib/api/api-request.js') });
