/** The controller's settings: one table that is read, checked, documented and shown by `--help`. */
import { LOG_LEVELS } from '../../shared/node/log-level.ts'
import type { Settings, SettingTable } from '../../shared/node/settings.ts'

export const CONTROLLER_SETTINGS = {
  stateFolder: {
    type: 'text',
    environment: 'CORDON_CONTROLLER_STATE',
    fallback: '/var/lib/cordon-controller',
    summary: 'Folder of authority, databases and events; only the controller may read it.',
  },
  logLevel: {
    type: 'choice',
    choices: LOG_LEVELS,
    environment: 'CORDON_CONTROLLER_LOG_LEVEL',
    fallback: 'info',
    summary: 'How much is logged.',
  },
  apiAddress: {
    type: 'text',
    environment: 'CORDON_CONTROLLER_API_ADDRESS',
    fallback: '127.0.0.1',
    summary: 'Address on which console and API listen; put a TLS proxy before any other than loopback.',
  },
  apiPort: {
    type: 'number',
    minimum: 0,
    maximum: 65_535,
    environment: 'CORDON_CONTROLLER_API_PORT',
    fallback: 7_800,
    summary: 'Port of console and API; 0 takes a free one.',
  },
  publicUrl: {
    type: 'text',
    environment: 'CORDON_CONTROLLER_PUBLIC_URL',
    fallback: null,
    summary: 'Address under which people reach the console, when it is not http://localhost:PORT.',
  },
  gatewayAddress: {
    type: 'text',
    environment: 'CORDON_CONTROLLER_GATEWAY_ADDRESS',
    fallback: '0.0.0.0',
    summary: 'Address on which agents connect (mutual TLS).',
  },
  gatewayPort: {
    type: 'number',
    minimum: 0,
    maximum: 65_535,
    environment: 'CORDON_CONTROLLER_GATEWAY_PORT',
    fallback: 7_801,
    summary: 'Port on which agents connect; 0 takes a free one.',
  },
  enrolmentPort: {
    type: 'number',
    minimum: 0,
    maximum: 65_535,
    environment: 'CORDON_CONTROLLER_ENROLMENT_PORT',
    fallback: 7_802,
    summary: 'Port on which agents enrol with a token; 0 takes a free one.',
  },
  agentFacingHost: {
    type: 'text',
    environment: 'CORDON_CONTROLLER_AGENT_FACING_HOST',
    fallback: 'localhost',
    summary: 'Host name or address that agents dial; it goes into what enrolment answers.',
  },
  passphraseFile: {
    type: 'text',
    environment: 'CORDON_CONTROLLER_PASSPHRASE_FILE',
    fallback: null,
    summary:
      'File (mode 0600) with the passphrase of the issuers’ keys; else `passphrase` in the state folder.',
  },
  evidenceFileBytesMax: {
    type: 'number',
    minimum: 1024,
    maximum: 1024 ** 4,
    environment: 'CORDON_CONTROLLER_EVIDENCE_FILE_BYTES_MAX',
    fallback: 4 * 1024 ** 3,
    summary: 'Bytes of the largest file that is taken from a host as evidence.',
  },
  evidenceBytesMax: {
    type: 'number',
    minimum: 1024,
    maximum: 1024 ** 5,
    environment: 'CORDON_CONTROLLER_EVIDENCE_BYTES_MAX',
    fallback: 64 * 1024 ** 3,
    summary: 'Bytes of all evidence together, with what is on its way.',
  },
  retentionDays: {
    type: 'number',
    minimum: 1,
    maximum: 3_650,
    environment: 'CORDON_CONTROLLER_RETENTION_DAYS',
    fallback: 30,
    summary: 'Days that events are kept; whole files are dropped.',
  },
  retentionBytesMax: {
    type: 'number',
    minimum: 64 * 1024 ** 2,
    maximum: Number.MAX_SAFE_INTEGER,
    environment: 'CORDON_CONTROLLER_RETENTION_BYTES_MAX',
    fallback: null,
    summary: 'Bytes that the events may take: above it the oldest whole files are dropped, however young.',
  },
} as const satisfies SettingTable

export type ControllerSettings = Settings<typeof CONTROLLER_SETTINGS>
