/** Who the controller's files belong to. */
import { statSync } from 'node:fs'

/**
 * As root, becomes the owner of the state folder: the service runs as a user of its own, and could read nothing
 * that an administrator's command made there as root.
 */
export function becomeStateOwner(folder: string): void {
  if (process.geteuid?.() !== 0) return
  const facts = statSync(folder, { throwIfNoEntry: false })
  if (facts === undefined || facts.uid === 0) return
  process.setgroups?.([])
  process.setgid?.(facts.gid)
  process.setuid?.(facts.uid)
}
