/** Runs as a process of its own: deletes the audit rule that its argument holds in hexadecimal. */
import { loadNative } from '../../../native/addon.ts'
import { openAuditControl } from '../control.ts'

const loaded = loadNative()
if (!loaded.ok) throw new Error(loaded.reason)
const control = openAuditControl(loaded.native)
await control.deleteRule(Buffer.from(process.argv[2] ?? '', 'hex'))
control.close()
