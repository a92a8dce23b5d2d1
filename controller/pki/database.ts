/** The PKI's own database: who has been enrolled, which certificates are in force, which tokens are out. */
import { openSqlite, type Sqlite } from '../../shared/node/sqlite.ts'

const migrations = [
  `CREATE TABLE agent (
     agent_id TEXT PRIMARY KEY,
     group_name TEXT NOT NULL,
     enrolled_at INTEGER NOT NULL,
     revoked_at INTEGER,
     revoked_reason TEXT
   ) STRICT;
   CREATE TABLE certificate (
     fingerprint TEXT PRIMARY KEY,
     agent_id TEXT NOT NULL REFERENCES agent (agent_id),
     -- One certificate per key: a renewal brings a new key, and no key serves two agents.
     key_fingerprint TEXT NOT NULL UNIQUE,
     serial TEXT NOT NULL UNIQUE,
     generation INTEGER NOT NULL,
     not_after INTEGER NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('pending', 'current', 'superseded')),
     superseded_at INTEGER,
     clone_seen_at INTEGER,
     chain_pem TEXT NOT NULL,
     UNIQUE (agent_id, generation)
   ) STRICT;
   CREATE TABLE token (
     id TEXT PRIMARY KEY,
     secret_hash TEXT NOT NULL,
     group_name TEXT NOT NULL,
     created_by TEXT NOT NULL,
     expires_at INTEGER NOT NULL,
     failed_attempts INTEGER NOT NULL DEFAULT 0,
     used_at INTEGER,
     used_by_key TEXT
   ) STRICT;`,
]

export function openPkiDatabase(path: string): Sqlite {
  return openSqlite({ path, migrations })
}
