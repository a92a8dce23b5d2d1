/** Data on standard output: as a table for people, as JSON for programs, or as bare names for pipes. */
import Table from 'cli-table3'
import { csvOf } from '../api/csv.ts'
import { type Io, usage } from './command.ts'
import { displayWidth, printable, printableJson } from './printable.ts'

export interface Column<Item> {
  readonly title: string
  readonly value: (item: Item) => string | number | null | undefined
  /** The whole of what a table shortens or adorns, for CSV. */
  readonly plain?: (item: Item) => string | number | null | undefined
  /** Shown with `-o wide` only, and in CSV. */
  readonly wide?: boolean
  /** Gives way first when the terminal is narrow. */
  readonly gives?: boolean
  readonly colour?: (item: Item) => Colour | undefined
}

const COLOURS = { red: 31, orange: 33, yellow: 93, blue: 34, grey: 90, green: 32 } as const
type Colour = keyof typeof COLOURS

export interface Printer {
  list<Item>(
    items: readonly Item[],
    columns: readonly Column<Item>[],
    about: { readonly name: (item: Item) => string; readonly none: string },
  ): void
  /** One thing: its fields one below the other. */
  record<Item>(item: Item, columns: readonly Column<Item>[], name: string): void
  /** One item of an endless list: a line of text, or of JSON. */
  line(item: unknown, text: string): void
  /** Lines for people; programs get `item` instead. */
  block(item: unknown, lines: readonly string[], name: string): void
  /** A moment in the time zone that was asked for, which is always shown. */
  time(iso: string | number | null | undefined): string
  /** The same with milliseconds, where the order of things matters. */
  moment(iso: string | number | null | undefined): string
  readonly json: boolean
}

export interface PrinterOptions {
  /** `*`, or the fields to keep. Undefined: no JSON. */
  readonly json: string | undefined
  readonly output: 'table' | 'wide' | 'name' | 'csv'
  readonly colour: boolean
  readonly timeZone: string
}

export function createPrinter(io: Io, options: PrinterOptions): Printer {
  const fields = options.json === undefined || options.json === '*' ? undefined : options.json.split(',')
  const json = options.json !== undefined
  const write = (text: string) => io.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
  const shown = <Item>(columns: readonly Column<Item>[]) =>
    columns.filter(({ wide }) => !wide || options.output === 'wide')
  const time = createClock(options.timeZone, 0)
  const csv = <Item>(items: readonly Item[], columns: readonly Column<Item>[]) => {
    const titles = columns.map(({ title }) => title.toLowerCase())
    const rows = items.map((item) =>
      Object.fromEntries(
        columns.map(({ value, plain }, index) => {
          const cell = (plain ?? value)(item)
          return [titles[index], cell === '-' ? null : typeof cell === 'string' ? printable(cell) : cell]
        }),
      ),
    )
    write(csvOf(rows, Object.fromEntries(titles.map((title) => [title, title]))))
  }
  const noCsv = () => usage('this has no CSV form', 'Lists have; here, use --json.')

  return {
    json,
    time,
    moment: createClock(options.timeZone, 3),
    list(items, columns, { name, none }) {
      if (json)
        return write(
          printableJson(
            items.map((item) => pick(item, fields)),
            2,
          ),
        )
      if (options.output === 'csv') return csv(items, columns)
      if (options.output === 'name') {
        if (items.length > 0) write(items.map((item) => printable(name(item))).join('\n'))
        return
      }
      if (items.length === 0) return io.stderr.write(`${none}\n`)
      write(
        tableOf(items, shown(columns), io.stdout.isTerminal ? io.stdout.columns : undefined, options.colour),
      )
    },
    record(item, columns, name) {
      if (json) return write(printableJson(pick(item, fields), 2))
      if (options.output === 'csv') return csv([item], columns)
      if (options.output === 'name') return write(printable(name))
      const width = Math.max(...columns.map(({ title }) => title.length))
      for (const { title, value } of columns) {
        const text = value(item)
        if (text !== undefined) write(`${title.padEnd(width)}  ${printable(String(text ?? '-'))}`)
      }
    },
    line(item, text) {
      if (options.output === 'csv' && !json) throw noCsv()
      write(json ? printableJson(pick(item, fields)) : text)
    },
    block(item, lines, name) {
      if (json) return write(printableJson(pick(item, fields), 2))
      if (options.output === 'csv') throw noCsv()
      if (options.output === 'name') return write(printable(name))
      for (const line of lines) write(line)
    },
  }
}

/** Keeps the named fields; a dotted name that is no field itself leads into the objects below. */
function pick(item: unknown, fields: readonly string[] | undefined): unknown {
  if (!fields) return item
  if (Array.isArray(item)) return item.map((each) => pick(each, fields))
  return Object.fromEntries(fields.map((field) => [field, fieldOf(item, field)]))
}

function fieldOf(item: unknown, path: string): unknown {
  if (typeof item !== 'object' || item === null) return null
  if (Object.hasOwn(item, path)) return (item as Record<string, unknown>)[path]
  for (let dot = path.indexOf('.'); dot > 0; dot = path.indexOf('.', dot + 1)) {
    const head = path.slice(0, dot)
    if (Object.hasOwn(item, head))
      return fieldOf((item as Record<string, unknown>)[head], path.slice(dot + 1))
  }
  return null
}

const GAP = '  '
/** Narrower than this nothing can be read; the second is for terminals that are too narrow for all columns. */
const COLUMN_WIDTHS_MIN = [12, 3] as const

function tableOf<Item>(
  items: readonly Item[],
  columns: readonly Column<Item>[],
  widthMax: number | undefined,
  colour: boolean,
): string {
  const rows = items.map((item) => columns.map(({ value }) => printable(String(value(item) ?? '-'))))
  const titles = columns.map(({ title }) => title.toUpperCase())
  const natural = titles.map((title, index) =>
    Math.max(displayWidth(title), ...rows.map((row) => displayWidth(row[index] ?? ''))),
  )
  const none = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '' }
  const table = new Table({
    head: titles,
    colWidths: fitWidths(natural, columns, widthMax),
    chars: {
      ...none,
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: GAP,
    },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  })
  rows.forEach((row, index) => {
    const item = items[index]
    table.push(
      row.map((text, column) => {
        const name = colour && item !== undefined ? columns[column]?.colour?.(item) : undefined
        return name === undefined ? text : `\u001b[${COLOURS[name]}m${text}\u001b[39m`
      }),
    )
  })
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
}

/** Takes what is too much from the columns that give way, the widest first; then from any. */
function fitWidths<Item>(
  natural: readonly number[],
  columns: readonly Column<Item>[],
  widthMax: number | undefined,
): number[] {
  const widths = [...natural]
  if (widthMax === undefined) return widths
  let excess = widths.reduce((sum, width) => sum + width, 0) + GAP.length * (widths.length - 1) - widthMax
  const shrink = (candidates: readonly number[], widthMin: number) => {
    while (excess > 0) {
      const widest = candidates.reduce(
        (best, at) => ((widths[at] ?? 0) > (widths[best] ?? 0) ? at : best),
        candidates[0] ?? 0,
      )
      const width = widths[widest] ?? 0
      if (candidates.length === 0 || width <= widthMin) return
      widths[widest] = width - 1
      excess -= 1
    }
  }
  const [readable, least] = COLUMN_WIDTHS_MIN
  shrink(
    columns.flatMap(({ gives }, index) => (gives ? [index] : [])),
    readable,
  )
  shrink(
    columns.map((_, index) => index),
    least,
  )
  return widths
}

function createClock(timeZone: string, fractionDigits: 0 | 3): Printer['time'] {
  const local = timeZone === 'local' ? undefined : timeZone
  const format = (() => {
    if (timeZone === 'UTC') return undefined
    try {
      return new Intl.DateTimeFormat('sv-SE', {
        ...(local === undefined ? {} : { timeZone: local }),
        dateStyle: 'short',
        timeStyle: 'medium',
      })
    } catch {
      throw usage(
        `--tz does not know the zone ${printable(timeZone)}`,
        'Names are as in Europe/Berlin, or local.',
      )
    }
  })()
  const zone =
    format &&
    new Intl.DateTimeFormat('en', {
      ...(local === undefined ? {} : { timeZone: local }),
      timeZoneName: 'longOffset',
    })
  return (moment) => {
    if (moment === null || moment === undefined) return '-'
    const at = new Date(moment)
    if (Number.isNaN(at.getTime())) return printable(String(moment))
    const fraction = fractionDigits === 0 ? '' : at.toISOString().slice(19, 23)
    if (!format || !zone) return `${at.toISOString().slice(0, 19).replace('T', ' ')}${fraction}Z`
    const offset =
      zone
        .formatToParts(at)
        .find(({ type }) => type === 'timeZoneName')
        ?.value.replace('GMT', '') ?? ''
    return `${format.format(at)}${fraction}${offset === '' ? '+00:00' : offset}`
  }
}

const SEVERITY_SHAPES: Readonly<Record<string, readonly [string, Colour]>> = {
  critical: ['◆', 'red'],
  high: ['▲', 'orange'],
  medium: ['■', 'yellow'],
  low: ['●', 'blue'],
  info: ['○', 'grey'],
}

/** Shape, word and colour: no one of them alone. */
export function severityColumn<Item extends { readonly severity: string }>(): Column<Item> {
  return {
    title: 'severity',
    plain: ({ severity }) => severity,
    value: ({ severity }) => `${SEVERITY_SHAPES[severity]?.[0] ?? '?'} ${severity}`,
    colour: ({ severity }) => SEVERITY_SHAPES[severity]?.[1],
  }
}
