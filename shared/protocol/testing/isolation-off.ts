import type { IsolationStatus } from '../messages.ts'

/** Of a host that is not cut off and could be. */
export const ISOLATION_OFF: IsolationStatus = {
  possible: true,
  reason: '',
  state: 'off',
  commandId: null,
  since: null,
  leaseEnds: null,
}
