/** The hash behind the ids of detections, the same on the agent and the controller. */
import { hash } from 'node:crypto'

/** First 16 bytes of the SHA-256 of the text's UTF-8, as 32 hex digits. */
export function detectionDigest(text: string): string {
  return hash('sha256', text, 'hex').slice(0, 32)
}
