import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

test('an error is logged with its message and stack, whether it is named `err` or `error`', () => {
  const script = `import { createLogger } from '${join(import.meta.dirname, 'logger.ts')}'
    const logger = createLogger('test', 'info')
    logger.error({ error: new Error('named error') }, 'first')
    logger.error({ err: new Error('named err') }, 'second')
    logger.warn({ error: 'only words' }, 'third')`
  const { stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  const [first, second, third] = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(first).toMatchObject({ error: { message: 'named error', stack: expect.any(String) }, msg: 'first' })
  expect(second).toMatchObject({ err: { message: 'named err' } })
  expect(third).toMatchObject({ error: 'only words' })
})
