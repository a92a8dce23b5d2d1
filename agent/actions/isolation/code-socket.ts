/** Where a break-glass code is given to the running agent: a socket in its state folder. */
import { askFolderSocket, serveFolderSocket } from '../../platform/linux/folder-socket.ts'
import type { CodeAnswer } from './break-glass.ts'

const SOCKET_NAME = 'isolation.sock'
/** Removing the rules of a host with a thousand devices takes a while. */
const ANSWER_TIMEOUT_MS = 60_000

export async function serveCodes(
  stateFolder: string,
  breakGlass: (code: string) => Promise<CodeAnswer>,
  signal: AbortSignal,
): Promise<void> {
  const answer = async (code: string) => {
    try {
      return JSON.stringify(await breakGlass(code))
    } catch (error) {
      return JSON.stringify({ kind: 'failed', reason: String(error) } satisfies CodeAnswer)
    }
  }
  await serveFolderSocket(stateFolder, SOCKET_NAME, answer, signal)
}

/** Null: no agent runs there. */
export async function giveCode(stateFolder: string, code: string): Promise<CodeAnswer | null> {
  const line = code.trim().replaceAll(/\s/g, ' ')
  const answered = await askFolderSocket(stateFolder, SOCKET_NAME, line, ANSWER_TIMEOUT_MS)
  if (answered.kind === 'nobody') return null
  if (answered.kind === 'failed') return { kind: 'failed', reason: answered.cause.message }
  // Only an agent of this very program answers on the socket in its own folder.
  return JSON.parse(answered.line) as CodeAnswer
}
