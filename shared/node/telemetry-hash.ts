/** The name of telemetry lists by their content. */
import { canonicalTelemetryLists, type TelemetryLists } from '../protocol/telemetry-lists.ts'
import { sha256Hex } from './signing.ts'

/** SHA-256 of their canonical text, in hex. */
export function hashTelemetryLists(lists: TelemetryLists): string {
  return sha256Hex(Buffer.from(canonicalTelemetryLists(lists)))
}
