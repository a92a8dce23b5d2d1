/** Builds version-stub.c with gcc, which the agent's addon needs as well. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const here = import.meta.dirname

const FLAGS = [
  ...[
    '-std=gnu11',
    '-Os',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-ffreestanding',
    '-nostdlib',
    '-static',
    '-no-pie',
  ],
  // It runs wherever it is put, and leaves the registers alone that its entry does not save.
  ...['-fPIE', '-mgeneral-regs-only', '-fno-stack-protector', '-fno-asynchronous-unwind-tables'],
  // A loop that becomes a call of memcmp has nothing to call.
  ...['-fno-tree-loop-distribute-patterns', '-fno-lto', '-fcf-protection=none'],
  ...['-Wl,--build-id=none', '-Wl,--oformat=binary', `-Wl,-T,${join(here, 'version-stub.ld')}`],
]

/**
 * Bytes for x86-64 that begin with the entry. Behind the last one belongs a jump to the program. `version` is
 * what they answer, and a newline. Throws what gcc says.
 */
export function compileStub(version: string): Buffer {
  // It becomes a literal of C.
  if (!/^[0-9A-Za-z.+-]{1,64}$/.test(version))
    throw new Error(`was given no version: ${JSON.stringify(version)}`)
  const folder = mkdtempSync(join(tmpdir(), 'cordon-stub-'))
  try {
    const output = join(folder, 'stub')
    const source = join(here, 'version-stub.c')
    execFileSync('gcc', [...FLAGS, `-DVERSION_ANSWER="${version}\\n"`, '-o', output, source], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    return readFileSync(output)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
