/** The running agent's word on itself, over a socket in its state folder, as one line of JSON. */
import { askFolderSocket, serveFolderSocket } from '../platform/linux/folder-socket.ts'

const SOCKET_NAME = 'agent.sock'

/** Serves `report()` until `signal` aborts. */
export async function serveStatus(
  stateFolder: string,
  report: () => unknown,
  signal: AbortSignal,
): Promise<void> {
  await serveFolderSocket(stateFolder, SOCKET_NAME, () => JSON.stringify(report()), signal)
}

export type StatusAnswer =
  | { readonly kind: 'answer'; readonly report: unknown }
  | { readonly kind: 'notRunning' }
  | { readonly kind: 'failed'; readonly cause: Error }

/** Asks the agent whose state folder this is. */
export async function askStatus(stateFolder: string): Promise<StatusAnswer> {
  const answered = await askFolderSocket(stateFolder, SOCKET_NAME, '')
  if (answered.kind === 'nobody') return { kind: 'notRunning' }
  if (answered.kind === 'failed') return answered
  try {
    return { kind: 'answer', report: JSON.parse(answered.line) }
  } catch (cause) {
    return { kind: 'failed', cause: cause as Error }
  }
}
