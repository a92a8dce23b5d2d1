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
  `ALTER TABLE agent ADD COLUMN held_at INTEGER;
   ALTER TABLE agent ADD COLUMN held_reason TEXT;
   -- A certificate that a renewal had replaced was used. The one in force used after it shows that there are two.
   ALTER TABLE agent ADD COLUMN stale_seen_at INTEGER;
   -- Boot that was readmitted, or '*' for any: it alone goes on, and is told to renew, until that is seen.
   ALTER TABLE agent ADD COLUMN readmitted_boot TEXT;
   CREATE TABLE contender (
     agent_id TEXT NOT NULL REFERENCES agent (agent_id),
     boot_id TEXT NOT NULL,
     certificate_fingerprint TEXT NOT NULL,
     host_name TEXT NOT NULL,
     address TEXT NOT NULL,
     seen_at INTEGER NOT NULL,
     PRIMARY KEY (agent_id, boot_id, certificate_fingerprint)
   ) STRICT, WITHOUT ROWID;
   -- Requests of agents whose certificate ran out while they were away: the newest of each.
   CREATE TABLE expired_renewal (
     agent_id TEXT PRIMARY KEY REFERENCES agent (agent_id),
     certificate_fingerprint TEXT NOT NULL,
     key_fingerprint TEXT NOT NULL,
     csr_pem TEXT NOT NULL,
     address TEXT NOT NULL,
     expired_at INTEGER NOT NULL,
     asked_at INTEGER NOT NULL,
     approved_at INTEGER
   ) STRICT, WITHOUT ROWID;`,
]

export function openPkiDatabase(path: string): Sqlite {
  return openSqlite({ path, migrations })
}
