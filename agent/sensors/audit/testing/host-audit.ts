/** What tests do to the host's audit beside Cordon, and how they see that it is as it was. */
import type { AuditControl } from '../control.ts'
import { encodeRule, RULE_KEY } from '../rules.ts'

/** A rule for a call that nobody makes, with a key of the same length as Cordon's, so that it can be put in. */
export function foreignRule(key: string): Buffer {
  const rule = encodeRule({ calls: ['pivot_root'], conditions: [['argument1', 'equal', 4_711]] }, 'b64')
  if (rule === null || key.length !== RULE_KEY.length) throw new Error('no such rule')
  rule.write(key, rule.length - key.length, 'latin1')
  return rule
}

/** Asks to be the audit daemon until it may, and leaves again. */
export const takeDaemonsPlace = `
import os, socket, struct, time
audit = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
def ask(pid):
    audit.send(struct.pack('IHHII11I', 60, 1001, 5, 1, 0, 4, 0, 0, pid, 0, 0, 0, 0, 0, 0, 0))
    while True:
        data = audit.recv(65536)
        if struct.unpack('H', data[4:6])[0] == 2:
            return struct.unpack('i', data[16:20])[0]
first = last = ask(os.getpid())
for attempt in range(100):
    if last == 0: break
    time.sleep(0.1)
    last = ask(os.getpid())
ask(0)
print(first, last)
`

/** Tells audit of a failed logon as PAM does, after its own login user was set, and prints its pid. */
export const failToLogOn = `
import os, socket, struct
with open('/proc/self/loginuid', 'w') as own: own.write('0')
audit = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
text = b'op=PAM:authentication acct="nobody-here" exe="/usr/sbin/sshd" hostname=? addr=192.0.2.7 terminal=ssh res=failed\\0'
audit.send(struct.pack('IHHII', 16 + len(text), 1100, 5, 1, 0) + text)
print(os.getpid(), flush=True)
`

export async function stateOf(control: AuditControl) {
  const { enabled, failure, pid, rateLimit, backlogLimit, backlogWaitTime } = await control.status()
  const rules = (await control.listRules()).map((rule) => rule.toString('hex'))
  return { enabled, failure, pid, rateLimit, backlogLimit, backlogWaitTime, rules }
}
