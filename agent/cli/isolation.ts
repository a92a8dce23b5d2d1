/** `cordon-agent release` and `restore-isolation`: isolation from the host's own command line. */
import { existsSync, readFileSync } from 'node:fs'
import { holdStateFolder } from '../../shared/node/state-lock.ts'
import { createInterlock } from '../actions/interlock.ts'
import type { CodeAnswer } from '../actions/isolation/break-glass.ts'
import { giveCode } from '../actions/isolation/code-socket.ts'
import { createHostFirewall, hostBootClock } from '../actions/isolation/host-isolation.ts'
import { recordPath } from '../actions/isolation/record.ts'
import { type OfflineOptions, releaseOffline, restoreIsolation } from '../actions/isolation/restore.ts'
import type { AgentSettings } from '../config/settings.ts'
import { AgentError } from '../error.ts'
import { readNetworkNamespace, runsAsService } from '../platform/linux/host.ts'

/**
 * Through the running agent, or by itself when none runs. `typed`: the code; `-` reads it from standard input,
 * because a command line can be read by every user of the host. Answers with what to tell.
 */
export async function releaseByCode(settings: AgentSettings, typed: string): Promise<string> {
  const code = typed === '-' ? readFileSync(0, 'utf8') : typed
  const given = await giveCode(settings.stateFolder, code)
  const answer = given ?? (await releaseStopped(settings, code))
  if (answer.kind !== 'right') throw new AgentError(`not released: ${answer.reason}`)
  return given === null
    ? 'released; the agent will tell the controller when it runs again'
    : 'released; the controller is told'
}

async function releaseStopped(settings: AgentSettings, code: string): Promise<CodeAnswer> {
  if (!existsSync(recordPath(settings.stateFolder))) {
    throw new AgentError(`this host is not isolated: ${settings.stateFolder} has no record of it`)
  }
  using held = holdStateFolder(settings.stateFolder)
  if (!held) throw new AgentError('the agent is just starting or stopping: try again in a moment')
  return await releaseOffline(offline(settings), code)
}

/** Puts a confirmed isolation back in force. Answers with what to tell. */
export async function restoreAtBoot(settings: AgentSettings): Promise<string> {
  if (!existsSync(recordPath(settings.stateFolder))) return 'nothing to restore: this host is not isolated'
  using held = holdStateFolder(settings.stateFolder)
  if (!held) return 'nothing to restore: the agent runs already, and keeps what is in force'
  const restored = await restoreIsolation(offline(settings))
  if (restored.kind === 'failed') throw new AgentError(`the isolation is not restored: ${restored.reason}`)
  if (restored.kind === 'nothing') return `nothing to restore: ${restored.reason}`
  const devices = restored.devices.join(', ') || 'none yet'
  return `isolated again, as command ${restored.commandId} asked; devices: ${devices}`
}

function offline(settings: AgentSettings): OfflineOptions {
  const interlock = createInterlock({
    installedAsService: runsAsService(),
    testRoot: settings.testRoot,
    testCgroup: settings.testCgroup,
    recordedNetworkNamespace: settings.launcherNetworkNamespace,
  })
  return {
    stateFolder: settings.stateFolder,
    firewall: createHostFirewall(settings.stateFolder, interlock),
    bootClock: hostBootClock,
    networkNamespace: readNetworkNamespace,
  }
}
