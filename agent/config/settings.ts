/** The agent's settings: one table that is read, checked, documented and shown by `--help`. */
import { LOG_LEVELS } from '../../shared/node/log-level.ts'
import type { Settings, SettingTable } from '../../shared/node/settings.ts'
import { PROCESS_LAYERS } from '../sensors/layer-names.ts'

export const AGENT_SETTINGS = {
  stateFolder: {
    type: 'text',
    environment: 'CORDON_AGENT_STATE',
    fallback: '/var/lib/cordon-agent',
    summary: 'Folder of identity, buffer, journal and quarantine; only the agent may read it.',
  },
  gatewayUrl: {
    type: 'text',
    environment: 'CORDON_AGENT_GATEWAY_URL',
    fallback: null,
    summary:
      'Where the controller is now, when not where enrolment said; its certificate must be the same fleet’s.',
  },
  logLevel: {
    type: 'choice',
    choices: LOG_LEVELS,
    environment: 'CORDON_AGENT_LOG_LEVEL',
    fallback: 'info',
    summary: 'How much is logged.',
  },
  sensors: {
    type: 'choice',
    choices: ['auto', ...PROCESS_LAYERS],
    environment: 'CORDON_AGENT_SENSORS',
    fallback: 'auto',
    summary:
      '`auto` takes the best layer that works here; a name takes none better than that. `polling` is the last fallback, for files as well.',
  },
  watchPaths: {
    type: 'list',
    itemsMax: 64,
    environment: 'CORDON_AGENT_WATCH_PATHS',
    fallback: ['/tmp', '/var/tmp', '/dev/shm'],
    summary: 'Folders that the fallback file sensor watches (the kernel sensor watches whole filesystems).',
  },
  contentFolders: {
    type: 'list',
    itemsMax: 16,
    environment: 'CORDON_AGENT_CONTENT',
    fallback: [],
    summary: 'Folders with further YARA rules (*.yar) and indicators (*.json) beside what ships.',
  },
  bufferBytesMax: {
    type: 'number',
    minimum: 4 * 1024 ** 2,
    maximum: 1024 ** 4,
    environment: 'CORDON_AGENT_BUFFER_BYTES_MAX',
    fallback: null,
    summary: 'Bytes of the buffer; by itself the smaller of 1 GiB and 5% of the free space.',
  },
  scanBytesMax: {
    type: 'number',
    minimum: 1024,
    maximum: 1024 ** 3,
    environment: 'CORDON_AGENT_SCAN_BYTES_MAX',
    fallback: 64 * 1024 ** 2,
    summary: 'Bytes of one file that YARA looks at.',
  },
  scanTimeoutMs: {
    type: 'number',
    minimum: 500,
    maximum: 600_000,
    environment: 'CORDON_AGENT_SCAN_TIMEOUT_MS',
    fallback: 10_000,
    summary: 'Time for one file, after which the scanner is restarted and the file told as skipped.',
  },
  scanCpuShare: {
    type: 'number',
    minimum: 0.01,
    maximum: 1,
    environment: 'CORDON_AGENT_SCAN_CPU_SHARE',
    fallback: 0.25,
    summary:
      'What the scanner may take of one core on average; files wait for it, and a minute’s worth may be used at once.',
  },
  scannerMemoryBytesMax: {
    type: 'number',
    minimum: 64 * 1024 ** 2,
    maximum: 16 * 1024 ** 3,
    environment: 'CORDON_AGENT_SCANNER_MEMORY_BYTES_MAX',
    fallback: 512 * 1024 ** 2,
    summary: 'Memory of the scanner process, above which it is restarted.',
  },
  quarantineFileBytesMax: {
    type: 'number',
    minimum: 1024,
    maximum: 1024 ** 4,
    environment: 'CORDON_AGENT_QUARANTINE_FILE_BYTES_MAX',
    fallback: 1024 ** 3,
    summary: 'Bytes of the largest file that is taken into quarantine.',
  },
  quarantineBytesMax: {
    type: 'number',
    minimum: 1024,
    maximum: 1024 ** 5,
    environment: 'CORDON_AGENT_QUARANTINE_BYTES_MAX',
    fallback: 4 * 1024 ** 3,
    summary: 'Bytes of all files in quarantine together.',
  },
  collectBytesMax: {
    type: 'number',
    minimum: 1024,
    maximum: 1024 ** 5,
    environment: 'CORDON_AGENT_COLLECT_BYTES_MAX',
    fallback: 4 * 1024 ** 3,
    summary: 'Bytes of all copies that wait on this host for the controller to fetch them.',
  },
  isolationConfirmMs: {
    type: 'number',
    minimum: 1_000,
    maximum: 60_000,
    environment: 'CORDON_AGENT_ISOLATION_CONFIRM_MS',
    fallback: 60_000,
    summary:
      'Time in which the controller must answer through an isolation; without an answer it is rolled back.',
  },
  testRoot: {
    type: 'text',
    environment: 'CORDON_AGENT_TEST_ROOT',
    fallback: null,
    summary: 'An agent that is no service acts only on processes and files below this folder.',
  },
  testCgroup: {
    type: 'text',
    environment: 'CORDON_AGENT_TEST_CGROUP',
    fallback: null,
    summary: 'An agent that is no service acts also on processes in this cgroup (path below /sys/fs/cgroup).',
  },
  launcherNetworkNamespace: {
    type: 'text',
    environment: 'CORDON_AGENT_LAUNCHER_NETNS',
    fallback: null,
    summary: 'Network namespace of whoever launched an agent that is no service; isolation is refused in it.',
  },
} as const satisfies SettingTable

export type AgentSettings = Settings<typeof AGENT_SETTINGS>
