/**
 * Runs in a guest, where the addons of this machine are not: reads an agent's buffer with Node's own SQLite, past the
 * agent. `node guest-buffer.mjs BUFFER CLASS TEXT` says the stream, and the rows of a class that hold the text.
 */
import { DatabaseSync } from 'node:sqlite'

export interface GuestBuffer {
  readonly streamId: string
  readonly rows: readonly { readonly sequence: number; readonly body: string }[]
}

const [, , path = '', eventClass = '', text = ''] = process.argv
if (!/^[0-9]$/.test(eventClass)) throw new Error(`${eventClass} is no class of events`)
using db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 })
const rows = db
  .prepare(`SELECT sequence, body FROM class_${eventClass} WHERE instr(body, ?) > 0 ORDER BY sequence`)
  .all(text)
const { stream_id: streamId } = db.prepare('SELECT stream_id FROM stream').get() ?? {}
process.stdout.write(JSON.stringify({ streamId, rows }))
