/** The schema of `state.db`, in steps that are only ever appended. Times are milliseconds since 1970. */
export const STATE_MIGRATIONS: readonly string[] = [
  `
CREATE TABLE counter (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last wrapper sequence used per agent. It rises before the message leaves, so a crash skips a number
-- and never uses one twice.
CREATE TABLE delivery (
  agent_id TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer (
  name TEXT PRIMARY KEY,
  cursor TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE host (
  agent_id TEXT PRIMARY KEY,
  host_name TEXT NOT NULL,
  inventory TEXT NOT NULL,
  agent_version TEXT NOT NULL,
  boot_id TEXT,
  enrolled_ms INTEGER NOT NULL,
  last_seen_ms INTEGER,
  status TEXT,
  revoked_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE incident (
  number INTEGER PRIMARY KEY,
  title TEXT NOT NULL,
  status TEXT NOT NULL,
  severity INTEGER NOT NULL,
  started_ms INTEGER NOT NULL,
  detected_ms INTEGER NOT NULL,
  opened_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  -- By the controller's clock; the end of the grouping window is counted from here.
  last_detection_ms INTEGER NOT NULL,
  contained_ms INTEGER,
  reopened_ms INTEGER,
  closed_ms INTEGER,
  assignee TEXT,
  detection_count INTEGER NOT NULL,
  -- Severity and event time of the detection that names the incident.
  leading_severity INTEGER NOT NULL,
  leading_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX incident_status ON incident (status, number);

CREATE TABLE incident_host (
  incident INTEGER NOT NULL REFERENCES incident (number),
  agent_id TEXT NOT NULL,
  host_name TEXT NOT NULL,
  PRIMARY KEY (incident, agent_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_host_agent ON incident_host (agent_id, incident);

CREATE TABLE incident_entry (
  id INTEGER PRIMARY KEY,
  incident INTEGER NOT NULL REFERENCES incident (number),
  at_ms INTEGER NOT NULL,
  kind TEXT NOT NULL,
  by TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;
CREATE INDEX incident_entry_incident ON incident_entry (incident, id);

CREATE TABLE incident_relation (
  incident INTEGER NOT NULL REFERENCES incident (number),
  related INTEGER NOT NULL REFERENCES incident (number),
  because TEXT NOT NULL,
  PRIMARY KEY (incident, related)
) STRICT, WITHOUT ROWID;

-- An agent chooses the ids of its own detections, so an id alone says nothing: the agent is part of the key.
CREATE TABLE detection (
  agent_id TEXT NOT NULL,
  id TEXT NOT NULL,
  incident INTEGER NOT NULL REFERENCES incident (number),
  host_name TEXT NOT NULL,
  detected_ms INTEGER NOT NULL,
  last_detected_ms INTEGER NOT NULL,
  stored_ms INTEGER NOT NULL,
  engine TEXT NOT NULL,
  severity INTEGER NOT NULL,
  rule_id TEXT NOT NULL,
  rule_name TEXT NOT NULL,
  techniques TEXT NOT NULL,
  indicator TEXT,
  entity_id TEXT,
  session_leader TEXT,
  ancestors TEXT NOT NULL,
  process_name TEXT,
  command_line TEXT,
  parent_executable TEXT,
  file_path TEXT,
  file_sha256 TEXT,
  grouped_because TEXT NOT NULL,
  seen_by_agent INTEGER NOT NULL,
  seen_by_fleet INTEGER NOT NULL,
  PRIMARY KEY (agent_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX detection_incident ON detection (incident, detected_ms);

-- What a later detection may have in common with an incident. The value is a digest, so a row is small
-- whatever an agent sends.
CREATE TABLE grouping_key (
  kind TEXT NOT NULL,
  value BLOB NOT NULL,
  agent_id TEXT NOT NULL,
  incident INTEGER NOT NULL REFERENCES incident (number),
  event_ms INTEGER NOT NULL,
  PRIMARY KEY (kind, value, agent_id, incident)
) STRICT, WITHOUT ROWID;
CREATE INDEX grouping_key_incident ON grouping_key (incident);

CREATE TABLE intent (
  intent_id TEXT PRIMARY KEY,
  class TEXT NOT NULL,
  action TEXT NOT NULL,
  -- Exact bytes: what operators sign is what is stored, shown and delivered.
  bytes BLOB NOT NULL,
  requested_by TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  idempotency_key TEXT,
  request_hash TEXT NOT NULL,
  UNIQUE (requested_by, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE intent_signature (
  intent_id TEXT NOT NULL REFERENCES intent (intent_id),
  key_id TEXT NOT NULL,
  signature TEXT NOT NULL,
  operator TEXT NOT NULL,
  by TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (intent_id, key_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE action (
  command_id TEXT PRIMARY KEY,
  intent_id TEXT NOT NULL REFERENCES intent (intent_id),
  leaf_index INTEGER NOT NULL,
  leaf BLOB NOT NULL,
  agent_id TEXT NOT NULL,
  host_name TEXT NOT NULL,
  action TEXT NOT NULL,
  class TEXT NOT NULL,
  target TEXT NOT NULL,
  args TEXT NOT NULL,
  reason TEXT NOT NULL,
  incident INTEGER REFERENCES incident (number),
  requested_by TEXT NOT NULL,
  state TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  deliveries INTEGER NOT NULL,
  -- The live session that the last wrapper was made for.
  session_nonce TEXT,
  cancel_by TEXT,
  cancel_reason TEXT,
  -- The host's own clock at the agent's last accepted state.
  agent_ms INTEGER,
  final INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX action_open ON action (expires_ms) WHERE final = 0;
CREATE INDEX action_agent ON action (agent_id, created_ms);
CREATE INDEX action_agent_open ON action (agent_id, created_ms) WHERE final = 0;
CREATE INDEX action_incident ON action (incident, created_ms);
CREATE INDEX action_incident_open ON action (incident) WHERE final = 0;
CREATE INDEX action_intent ON action (intent_id, leaf_index);
CREATE INDEX action_created ON action (created_ms);
CREATE INDEX action_state ON action (state, created_ms);

CREATE TABLE action_step (
  command_id TEXT NOT NULL REFERENCES action (command_id),
  number INTEGER NOT NULL,
  state TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  by TEXT NOT NULL,
  reason TEXT NOT NULL,
  proof TEXT NOT NULL,
  PRIMARY KEY (command_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  by TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL,
  hash TEXT NOT NULL
) STRICT;
-- The hash chain finds a change made with other tools; these stop one made by mistake with this program.
CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries never change'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit entries never change'); END;
`,
  `
CREATE INDEX detection_stored ON detection (stored_ms);
`,
  `
-- One row in a database that came out of a backup: nothing is issued until a person has confirmed.
CREATE TABLE restoration (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  backup_ms INTEGER NOT NULL,
  restored_ms INTEGER,
  confirmed_ms INTEGER,
  confirmed_by TEXT
) STRICT;
`,
  `
-- Hosts that should be connected and are not; told_ms: when the alert was raised.
CREATE TABLE silence (
  agent_id TEXT PRIMARY KEY,
  since_ms INTEGER NOT NULL,
  told_ms INTEGER,
  farewell TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE alive (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  at_ms INTEGER NOT NULL
) STRICT;
`,
  `
CREATE TABLE evidence (
  command_id TEXT PRIMARY KEY REFERENCES action (command_id),
  agent_id TEXT NOT NULL,
  host_name TEXT NOT NULL,
  path TEXT NOT NULL,
  size_bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  offer TEXT NOT NULL,
  state TEXT NOT NULL,
  received_bytes INTEGER NOT NULL,
  offered_ms INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL,
  collected_ms INTEGER,
  reason TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX evidence_offered ON evidence (offered_ms);
CREATE INDEX evidence_agent ON evidence (agent_id, offered_ms);
CREATE INDEX evidence_state ON evidence (state, sha256);
`,
  `
CREATE TABLE break_glass (
  command_id TEXT PRIMARY KEY REFERENCES action (command_id),
  agent_id TEXT NOT NULL,
  code TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX break_glass_agent ON break_glass (agent_id, created_ms);
`,
  `
-- From when on events are kept: files of before were dropped.
CREATE TABLE retention (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  from_ms INTEGER NOT NULL
) STRICT;
`,
]
