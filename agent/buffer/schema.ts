/**
 * The buffer's tables. A responder opens the file with plain `sqlite3`, while the agent runs or from an image
 * of the disk, and asks the view `events`:
 *
 *     sqlite3 -readonly buffer.db "SELECT time, action, process, command_line FROM events ORDER BY time"
 *
 * Every other field of an event is in `body`: `json_extract(body, '$."user.name"')`. The fields' names are
 * those of docs/events.md. Delivered rows stay until a quarter of the file's cap needs their room; what was
 * dropped without delivery is told by rows of action `gap`, and by `open_gap` until they are written.
 */
import { EVENT_CLASSES } from '../../shared/events/delivery-class.ts'

// One table per class: rows that leave one shared table free no pages for rows of another class.
const classTables = EVENT_CLASSES.map(
  (eventClass) => `CREATE TABLE class_${eventClass} (
  sequence INTEGER PRIMARY KEY,
  time_ms INTEGER NOT NULL,
  -- The exact bytes that are hashed and sent.
  body TEXT NOT NULL,
  -- SHA-256(hash of the row before || body).
  hash BLOB NOT NULL
) STRICT;`,
).join('\n')

const allRows = EVENT_CLASSES.map(
  (eventClass) => `SELECT ${eventClass} AS class, sequence, time_ms, body, hash FROM class_${eventClass}`,
).join(' UNION ALL ')

const viewColumns = {
  time: '@timestamp',
  action: 'event.action',
  process: 'process.executable',
  pid: 'process.pid',
  command_line: 'process.command_line',
  entity_id: 'process.entity_id',
  parent: 'process.parent.executable',
  user: 'user.name',
  file: 'file.path',
  sha256: 'file.hash.sha256',
  destination: 'destination.ip',
  destination_port: 'destination.port',
  rule: 'rule.name',
  severity: 'cordon.detection.severity',
  reason: 'event.reason',
}

const view = `CREATE VIEW events AS SELECT class, sequence, ${Object.entries(viewColumns)
  .map(([column, field]) => `json_extract(body, '$."${field}"') AS "${column}"`)
  .join(', ')}, time_ms, body, hash FROM (${allRows});`

export const MIGRATIONS = [
  `${classTables}
CREATE TABLE stream (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  stream_id TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  last_commit_ms INTEGER NOT NULL,
  -- 1 after an orderly close. What an agent saw and had not committed when it was killed is told as a gap.
  clean INTEGER NOT NULL
) STRICT;
CREATE TABLE class (
  class INTEGER PRIMARY KEY,
  next_sequence INTEGER NOT NULL,
  last_hash BLOB NOT NULL,
  acknowledged INTEGER NOT NULL
) STRICT;
-- Hash of a row that left while the row after it stays: the chain goes on from here.
CREATE TABLE seam (
  class INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (class, sequence)
) STRICT, WITHOUT ROWID;
-- What was lost since the last gap event of its class was written. It becomes an event before anything more
-- is sent, so that weeks without a controller are told in one event rather than in thousands.
CREATE TABLE open_gap (
  class INTEGER NOT NULL,
  -- First and last sequence; 0 for events that were lost before they had one.
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  -- Null: nobody could count them.
  count INTEGER,
  bytes INTEGER,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (class, first, reason)
) STRICT, WITHOUT ROWID;
-- Rows that the controller refused for good, the newest few, for a person to look at.
CREATE TABLE refused (
  id INTEGER PRIMARY KEY,
  class INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  body TEXT NOT NULL,
  hash BLOB NOT NULL,
  reason TEXT NOT NULL
) STRICT;
${view}`,
] as const
