/** Rows that take a host with systemd, sshd and PAM: it is booted for this, in namespaces of its own. */
import { type SystemdRoot, startSystemdRoot } from '../../../test/testing/systemd-root.ts'
import type { Fields, Made } from './rows.ts'

const PASSWORD = 'harmless-1'
/** The agent finds the host and what it is configured with. */
const NOTICE_MS = 12_000
/** Of two that change one file at once, only the last is told to have done it. */
const BETWEEN_MS = 300
const SSH_OPTIONS = [
  ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR'],
  ...['-o', 'NumberOfPasswordPrompts=1', '-o', 'ConnectTimeout=20', '-o', 'PubkeyAuthentication=no'],
]
const ASK_ENVIRONMENT = { SSH_ASKPASS: '/root/askpass', SSH_ASKPASS_REQUIRE: 'force' }

interface Work {
  readonly count: number
  readonly say: (line: string) => void
  readonly pause: (ms: number) => Promise<unknown>
}

export async function makeOnBootedHost({ count, say, pause }: Work): Promise<Made[]> {
  await using host = await startSystemdRoot({ network: true })
  await host.must(['useradd', '--create-home', '--shell', '/bin/bash', 'tester'])
  await host.must(['chpasswd'], { input: `tester:${PASSWORD}\n` })
  await pause(NOTICE_MS)
  say('logons ...')
  await logOn(host, PASSWORD, count)
  await logOn(host, 'wrong', count)
  const numbers = Array.from({ length: count }, (_, index) => index)
  say('accounts ...')
  const oneByOne = async (command: readonly string[]) => {
    for (const number of numbers) {
      await host.must([...command, `made${number}`])
      await pause(BETWEEN_MS)
    }
  }
  await oneByOne(['useradd'])
  await oneByOne(['usermod', '--shell', '/bin/bash'])
  await oneByOne(['userdel'])
  say('tasks and services ...')
  const loop = (body: string) =>
    host.must(['sh', '-c', `for i in $(seq ${count}); do ${body}; sleep ${BETWEEN_MS / 1_000}; done`])
  const unit = '[Service]\\nExecStart=/bin/true\\n'
  await loop(`printf '* * * * * root true\\n' > /etc/cron.d/telemetry-$i`)
  await loop(`printf '${unit}' > /etc/systemd/system/telemetry-$i.service`)
  await loop(`printf '${unit}# more\\n' > /etc/systemd/system/telemetry-$i.service`)
  await loop('rm /etc/systemd/system/telemetry-$i.service')
  // What is told late is told before its host is gone.
  await pause(5_000)

  const isUser = (event: Fields) => /^made\d+$/.test(String(event['user.target.name']))
  const isService = (event: Fields) => /^telemetry-\d+\.service$/.test(String(event['service.name']))
  const by = (name: RegExp) => (event: Fields) => name.test(String(event['process.name']))
  const both =
    (...checks: readonly ((event: Fields) => boolean)[]) =>
    (event: Fields) =>
      checks.every((check) => check(event))
  const isTester = (event: Fields) =>
    event['user.target.name'] === 'tester' && event['cordon.logon.service'] === 'sshd'
  const row = (name: string, action: Made['action'], isOne: Made['isOne']): Made => ({
    row: name,
    made: count,
    action,
    isOne,
  })
  return [
    row('User logon', 'logon', both(isTester, by(/^sshd/))),
    row('User logoff', 'logoff', both(isTester, by(/^sshd/))),
    row('Logon failed', 'logon-failed', both(isTester, by(/^sshd/))),
    row('User account created', 'user-created', both(isUser, by(/^useradd$/))),
    row('User account modified', 'user-modified', both(isUser, by(/^usermod$/))),
    row('User account deleted', 'user-deleted', both(isUser, by(/^userdel$/))),
    row(
      'Scheduled task',
      'scheduled-task-changed',
      (event) =>
        String(event['file.path']).includes('/cron.d/telemetry-') && event['event.type'] === 'creation',
    ),
    row('Service created', 'service-created', both(isService, by(/^(?:ba|da)?sh$/))),
    row('Service modified', 'service-modified', both(isService, by(/^(?:ba|da)?sh$/))),
    row('Service deleted', 'service-deleted', both(isService, by(/^rm$/))),
  ]
}

async function logOn(host: SystemdRoot, password: string, count: number): Promise<void> {
  await host.must(['sh', '-c', 'cat > /root/askpass && chmod 700 /root/askpass'], {
    input: `#!/bin/sh\necho '${password}'\n`,
  })
  const target = [`tester@${host.sshAddress}`, '-p', String(host.sshPort)]
  for (let index = 0; index < count; index += 1) {
    const ran = await host.runFromNeighbour(['ssh', ...SSH_OPTIONS, ...target, 'true'], {
      environment: ASK_ENVIRONMENT,
    })
    if ((ran.status === 0) !== (password === PASSWORD))
      throw new Error(`ssh with the password ${password} ended with ${ran.status}: ${ran.stderr}`)
  }
}
