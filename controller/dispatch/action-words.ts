/** Actions in words for people: what is done to what. */
import type { Leaf } from '../../shared/protocol/commands.ts'
import type { Action } from './action.ts'

interface Told {
  readonly action: Action['action']
  readonly target: Leaf['target']
  readonly args: Readonly<Record<string, unknown>>
}

/** Such as `Kill of pid 42 with its descendants`. Paths are as the host told them: not fit for a terminal yet. */
export function actionInWords(told: Told): string {
  switch (told.action) {
    case 'killProcess':
      return `Kill of ${targetInWords(told)}`
    case 'quarantineFile':
      return `Quarantine of ${targetInWords(told)}`
    case 'restoreFile':
      return `Return of ${targetInWords(told)} from quarantine`
    case 'collectFile':
      return `Collection of ${targetInWords(told)}`
    case 'scanPath':
      return `Scan of ${targetInWords(told)}`
    case 'isolateHost':
      return `Isolation of ${targetInWords(told)}`
    case 'releaseHost':
      return `Release of ${targetInWords(told)}`
    case 'setTelemetryLists': {
      const rules = ruleCount(told.args)
      if (rules === 0) return `Removal of the telemetry lists of ${targetInWords(told)}`
      return `Telemetry lists with ${rules} ${rules === 1 ? 'rule' : 'rules'} for ${targetInWords(told)}`
    }
  }
}

function ruleCount(args: Told['args']): number {
  const { rules } = (args['lists'] ?? {}) as { readonly rules?: readonly unknown[] }
  return rules?.length ?? 0
}

/** Such as `pid 42 with its descendants`, a path, or `the host`. */
export function targetInWords({ target, args }: Pick<Told, 'target' | 'args'>): string {
  if (target.kind === 'host') return 'the host'
  if (target.kind !== 'process') return target.path
  return `pid ${target.pid}${args['tree'] === true ? ' with its descendants' : ''}`
}

/** What was measured, as `name=value`; what says nothing is left out. */
export function proofInWords(proof: Readonly<Record<string, unknown>>): string {
  return Object.entries(proof)
    .filter(([, value]) => value !== null && value !== '')
    .map(([name, value]) => `${name}=${String(value)}`)
    .join(', ')
}
