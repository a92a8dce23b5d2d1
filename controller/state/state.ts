/**
 * What the controller knows beyond the events: one SQLite database, one writer module per table. Everything
 * that belongs together is written in one transaction, the consumer's cursor included.
 */
import { openSqlite } from '../../shared/node/sqlite.ts'
import { type ActionsTable, createActionsTable } from './actions-table.ts'
import { type AuditTable, createAuditTable } from './audit-table.ts'
import { type BreakGlassTable, createBreakGlassTable } from './break-glass-table.ts'
import { type ConsumerTable, createConsumerTable } from './consumer-table.ts'
import { type CountersTable, createCountersTable } from './counters-table.ts'
import { createDetectionsTable, type DetectionsTable } from './detections-table.ts'
import { createEvidenceTable, type EvidenceTable } from './evidence-table.ts'
import { createGroupingKeysTable, type GroupingKeysTable } from './grouping-keys-table.ts'
import { createHostsTable, type HostsTable } from './hosts-table.ts'
import { createIncidentEntriesTable, type IncidentEntriesTable } from './incident-entries-table.ts'
import { createIncidentsTable, type IncidentsTable } from './incidents-table.ts'
import { createIntentsTable, type IntentsTable } from './intents-table.ts'
import { STATE_MIGRATIONS } from './migrations.ts'
import { createRestorationTable, type RestorationTable } from './restoration-table.ts'
import { createRetentionTable, type RetentionTable } from './retention-table.ts'
import { createSilencesTable, type SilencesTable } from './silences-table.ts'
import { createTransactions, type Transactions } from './transactions.ts'

export interface State extends Transactions {
  readonly hosts: HostsTable
  readonly silences: SilencesTable
  readonly retention: RetentionTable
  readonly incidents: IncidentsTable
  readonly incidentEntries: IncidentEntriesTable
  readonly detections: DetectionsTable
  readonly groupingKeys: GroupingKeysTable
  readonly intents: IntentsTable
  readonly actions: ActionsTable
  readonly evidence: EvidenceTable
  readonly breakGlass: BreakGlassTable
  readonly audit: AuditTable
  readonly consumer: ConsumerTable
  readonly counters: CountersTable
  readonly restoration: RestorationTable
  close(): void
}

/** Opens (or makes) the database at `path`. Throws when a newer program wrote it. */
export function openState(path: string): State {
  const db = openSqlite({
    path,
    migrations: STATE_MIGRATIONS,
  })
  return {
    ...createTransactions(db),
    hosts: createHostsTable(db),
    silences: createSilencesTable(db),
    retention: createRetentionTable(db),
    incidents: createIncidentsTable(db),
    incidentEntries: createIncidentEntriesTable(db),
    detections: createDetectionsTable(db),
    groupingKeys: createGroupingKeysTable(db),
    intents: createIntentsTable(db),
    actions: createActionsTable(db),
    evidence: createEvidenceTable(db),
    breakGlass: createBreakGlassTable(db),
    audit: createAuditTable(db),
    consumer: createConsumerTable(db),
    counters: createCountersTable(db),
    restoration: createRestorationTable(db),
    close: () => {
      db.close()
    },
  }
}
