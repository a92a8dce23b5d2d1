/** Stored events, live ones, and the audit log. */
import { EVENT_SCHEMAS } from '../../../shared/events/event.ts'
import { pause } from '../../../shared/node/loop.ts'
import { Audit } from '../../api/schemas.ts'
import type { Host } from '../../api/services.ts'
import {
  type Command,
  type CommandContext,
  EXIT,
  type ExitCode,
  Failure,
  type OptionSpec,
  usage,
} from '../command.ts'
import { type EventQueryTexts, eventColumns, eventLine, queryEvents } from '../event-rows.ts'
import { findHost, readHosts } from '../records.ts'

const TAIL_ROWS = 1_000
/** Looked at this often even when the stream says nothing: a lost stream delays, it does not silence. */
const TAIL_POLL_MS = 2_000

const FILTERS: readonly OptionSpec[] = [
  { flags: '--host <host>', summary: 'only of this host' },
  { flags: '--action <action>', summary: 'only of this kind', choices: Object.keys(EVENT_SCHEMAS) },
  { flags: '--entity <id>', summary: 'only of this process' },
  { flags: '--parent <id>', summary: 'only of children of this process' },
  { flags: '--sha256 <hash>', summary: 'only about this content' },
  { flags: '--address <address>', summary: 'only to this destination' },
  { flags: '--path <path>', summary: 'only about this path' },
  { flags: '--contains <text>', summary: 'only with this text in them, case-sensitive' },
]

export const EVENT_COMMANDS: readonly Command[] = [
  {
    name: 'event query',
    summary: 'search the stored events, newest first',
    example: 'cordon event query --action connection --from 1h',
    options: [
      ...FILTERS,
      {
        flags: '--from <moment>',
        summary: 'not before: a time such as 2026-01-02T03:04:05Z, or 1h for an hour ago',
      },
      { flags: '--to <moment>', summary: 'not after' },
      { flags: '--oldest-first', summary: 'in order of arrival' },
      { flags: '--limit <count>', summary: 'at most so many (default 100)' },
    ],
    async run(context) {
      const { options, print } = context
      const hosts = await readHosts(context)
      const rows = await queryEvents(context, {
        ...filtersFrom(context, hosts),
        ...momentFrom(context, 'from', 'fromMs'),
        ...momentFrom(context, 'to', 'toMs'),
        order: options.has('oldestFirst') ? 'ascending' : 'descending',
        limit: options.whole('limit', 100, 10_000),
      })
      print.list(rows, eventColumns(print, namesOf(hosts)), {
        name: ({ cursor }) => cursor,
        none: 'No events match.',
      })
      return EXIT.ok
    },
  },
  {
    name: 'event tail',
    summary: 'print events as they arrive, until Ctrl-C',
    example: 'cordon event tail --action detection --json',
    options: [...FILTERS, { flags: '--count <count>', summary: 'stop after so many' }],
    run: tail,
  },
  {
    name: 'audit',
    summary: 'show who did what to which subject, newest first',
    example: 'cordon audit --limit 20',
    options: [{ flags: '--limit <count>', summary: 'at most so many (default 100)' }],
    async run({ client, print, options }) {
      const { entries } = await client().show('/audit', Audit, { limit: options.whole('limit', 100, 10_000) })
      print.list(
        entries,
        [
          { title: 'time', value: ({ at }) => print.time(at) },
          { title: 'by', value: ({ by }) => by },
          { title: 'action', value: ({ action }) => action },
          { title: 'subject', value: ({ subject }) => subject, gives: true },
          { title: 'detail', value: ({ detail }) => detail, gives: true },
          { title: 'hash', value: ({ hash }) => hash, wide: true },
        ],
        { name: ({ hash }) => hash, none: 'The audit log is empty.' },
      )
      return EXIT.ok
    },
  },
]

async function tail(context: CommandContext): Promise<ExitCode> {
  const { io, print, options } = context
  const hosts = await readHosts(context)
  const names = namesOf(hosts)
  const filters = filtersFrom(context, hosts)
  const count =
    options.text('count') === undefined ? Number.POSITIVE_INFINITY : options.whole('count', 1, 1_000_000)
  const [newest] = await queryEvents(context, { order: 'descending', limit: 1 })
  let after = newest?.cursor ?? ''
  let printed = 0
  const ended = new AbortController()
  const bell = createBell()
  const listening = listen(context, AbortSignal.any([io.signal, ended.signal]), bell.ring)
  context.note('Waiting for events. Ctrl-C ends.')
  try {
    while (!io.signal.aborted) {
      const rows = await queryEvents(context, { ...filters, after, order: 'ascending', limit: TAIL_ROWS })
      for (const row of rows) {
        print.line(row, eventLine(row, print, names))
        printed += 1
        if (printed >= count) return EXIT.ok
      }
      after = rows.at(-1)?.cursor ?? after
      if (rows.length < TAIL_ROWS) await bell.wait(io.signal)
    }
  } finally {
    ended.abort()
    await listening
  }
  throw new Failure(EXIT.interrupted, 'interrupted', 'interrupted')
}

async function listen(context: CommandContext, signal: AbortSignal, ring: () => void): Promise<void> {
  while (!signal.aborted) {
    try {
      for await (const change of context.client().stream('/stream', signal)) {
        if ((change as { kind?: unknown } | undefined)?.kind === 'events') ring()
      }
    } catch (error) {
      // Polling goes on, and fails by itself when the controller is really gone.
      if (error instanceof Failure && error.exitCode === EXIT.auth) return
    }
    await pause(TAIL_POLL_MS, signal)
  }
}

/** Wakes one waiter; a ring while nobody waits is remembered. */
function createBell() {
  let rung = false
  let wake: (() => void) | undefined
  return {
    ring() {
      rung = true
      wake?.()
    },
    async wait(signal: AbortSignal) {
      if (!rung) {
        const woken = new AbortController()
        wake = () => woken.abort()
        await pause(TAIL_POLL_MS, AbortSignal.any([signal, woken.signal]))
        wake = undefined
      }
      rung = false
    },
  }
}

function namesOf(hosts: readonly Host[]): ReadonlyMap<string, string> {
  return new Map(hosts.map(({ agentId, hostName }) => [agentId, hostName]))
}

function filtersFrom({ options }: CommandContext, hosts: readonly Host[]): Partial<EventQueryTexts> {
  const host = options.text('host')
  const pairs: readonly (readonly [string, string | undefined])[] = [
    ['agentId', host === undefined ? undefined : findHost(hosts, host).agentId],
    ['action', options.text('action')],
    ['entityId', options.text('entity')],
    ['parentEntityId', options.text('parent')],
    ['sha256', options.text('sha256')?.toLowerCase()],
    ['destinationAddress', options.text('address')],
    ['path', options.text('path')],
    ['contains', options.text('contains')],
  ]
  return Object.fromEntries(pairs.filter(([, value]) => value !== undefined))
}

function momentFrom({ options, io }: CommandContext, option: string, name: 'fromMs' | 'toMs') {
  const text = options.text(option)
  if (text === undefined) return {}
  if (/^[0-9]+(ms|s|m|h|d)$/.test(text)) return { [name]: io.clock() - (options.duration(option) ?? 0) }
  const atMs = /^[0-9]{4}-/.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(atMs))
    throw usage(`--${option} takes a time such as 2026-01-02T03:04:05Z, or 1h for an hour ago`)
  return { [name]: atMs }
}
