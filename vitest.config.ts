import { join } from 'node:path'
import { configDefaults, defineConfig } from 'vitest/config'

/** What boots whole machines, and the test of a program that tests use. */
const LONG_ONLY = [
  ...['test/packages-boot.test.ts', 'test/systemd-root.test.ts', 'test/kernel-6-1.test.ts'],
  'agent/native/testing/make-activity.test.ts',
]

// Pipeline tests start real programs, so files run two at a time on small machines and waits are generous.
// biome-ignore lint/style/noDefaultExport: vitest reads the default export of its configuration.
export default defineConfig({
  test: {
    include: ['{agent,controller,shared,scripts,test}/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...(process.env['CORDON_TEST_LONG'] === '1' ? [] : LONG_ONLY)],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Tests start the programs some hundred times: what Node compiled once is not compiled again.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, 'build', 'compile-cache') },
  },
})
