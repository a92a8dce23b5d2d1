/**
 * Paths as exact bytes in a string, one character a byte: names that are not UTF-8 are found, compared and opened
 * like all others, and plain ASCII paths, which nearly all are, stay as they are.
 */
import type { KernelText } from './records.ts'

export type ExactPath = string

export function toExact(path: KernelText): ExactPath {
  if (typeof path !== 'string') return Buffer.from(path).toString('latin1')
  for (let index = 0; index < path.length; index++) {
    if (path.charCodeAt(index) > 0x7f) return Buffer.from(path, 'utf8').toString('latin1')
  }
  return path
}

export function bytesOf(path: ExactPath): Buffer {
  return Buffer.from(path, 'latin1')
}

/** As events tell it. */
export function readable(path: ExactPath): string {
  return bytesOf(path).toString('utf8')
}

/** Where a symbolic link at `path` leads that says `link`, taken as text. */
export function linkTarget(path: ExactPath, link: ExactPath): ExactPath {
  const parts: string[] = []
  const whole = link.startsWith('/') ? link : `${path.slice(0, path.lastIndexOf('/'))}/${link}`
  for (const part of whole.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '.' && part !== '') parts.push(part)
  }
  return `/${parts.join('/')}`
}
