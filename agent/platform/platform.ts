/** Which system this is: the one place that asks. The agent's rooms get what they need from here. */

import {
  findUnifiedCgroup,
  readBootId,
  readBootTimeMs,
  readHostNamespaces,
  readNetworkNamespace,
  readSetting,
  readUprobeType,
  readUserNames,
  runsAsService,
} from './linux/host.ts'
import { findHolders, listPids, readProcess, translatePid } from './linux/proc.ts'
import { listStats, readStat } from './linux/processes.ts'

export interface Platform {
  readonly name: 'linux'
  readonly readProcess: typeof readProcess
  readonly listPids: typeof listPids
  readonly readStat: typeof readStat
  readonly listStats: typeof listStats
  readonly findHolders: typeof findHolders
  readonly translatePid: typeof translatePid
  readonly readHostNamespaces: typeof readHostNamespaces
  readonly readSetting: typeof readSetting
  readonly findUnifiedCgroup: typeof findUnifiedCgroup
  readonly readUprobeType: typeof readUprobeType
  readonly readBootId: typeof readBootId
  readonly readBootTimeMs: typeof readBootTimeMs
  readonly readNetworkNamespace: typeof readNetworkNamespace
  readonly readUserNames: typeof readUserNames
  readonly runsAsService: typeof runsAsService
}

export type PlatformResult =
  | { readonly ok: true; readonly platform: Platform }
  | { readonly ok: false; readonly reason: string }

/** The system's own functions, or why the agent cannot run here. */
export function selectPlatform(): PlatformResult {
  if (process.platform === 'linux') {
    const processes = { readProcess, listPids, readStat, listStats, findHolders, translatePid }
    const host = { readHostNamespaces, readSetting, findUnifiedCgroup, readBootId, readBootTimeMs }
    const self = { readUprobeType, readNetworkNamespace, readUserNames, runsAsService }
    return { ok: true, platform: { name: 'linux', ...processes, ...host, ...self } }
  }
  return { ok: false, reason: `cordon-agent runs on Linux; this system is ${process.platform}` }
}
