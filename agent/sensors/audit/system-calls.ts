/** Numbers of the system calls that are asked for, on x86-64 and for 32-bit programs (asm/unistd_64.h, unistd_32.h). */

/** AUDIT_ARCH_X86_64 and AUDIT_ARCH_I386 of linux/audit.h. */
export const ARCHITECTURES = { b64: 0xc000_003e, b32: 0x4000_0003 } as const
export type Architecture = keyof typeof ARCHITECTURES

interface Numbers {
  readonly b64: readonly number[]
  readonly b32: readonly number[]
  /** Those 32-bit ones that take users and groups of 16 bits. */
  readonly narrow?: readonly number[]
}

export const SYSTEM_CALLS = {
  execve: { b64: [59], b32: [11] },
  execveat: { b64: [322], b32: [358] },
  connect: { b64: [42], b32: [362] },
  accept: { b64: [43], b32: [] },
  accept4: { b64: [288], b32: [364] },
  bind: { b64: [49], b32: [361] },
  listen: { b64: [50], b32: [363] },
  socket: { b64: [41], b32: [359] },
  socketcall: { b64: [], b32: [102] },
  ptrace: { b64: [101], b32: [26] },
  process_vm_readv: { b64: [310], b32: [347] },
  process_vm_writev: { b64: [311], b32: [348] },
  memfd_create: { b64: [319], b32: [356] },
  init_module: { b64: [175], b32: [128] },
  finit_module: { b64: [313], b32: [350] },
  delete_module: { b64: [176], b32: [129] },
  bpf: { b64: [321], b32: [357] },
  unshare: { b64: [272], b32: [310] },
  setns: { b64: [308], b32: [346] },
  clone: { b64: [56], b32: [120] },
  mount: { b64: [165], b32: [21] },
  umount2: { b64: [166], b32: [22, 52] },
  move_mount: { b64: [429], b32: [429] },
  pivot_root: { b64: [155], b32: [217] },
  setuid: { b64: [105], b32: [23, 213], narrow: [23] },
  setgid: { b64: [106], b32: [46, 214], narrow: [46] },
  setreuid: { b64: [113], b32: [70, 203], narrow: [70] },
  setregid: { b64: [114], b32: [71, 204], narrow: [71] },
  setresuid: { b64: [117], b32: [164, 208], narrow: [164] },
  setresgid: { b64: [119], b32: [170, 210], narrow: [170] },
  setfsuid: { b64: [122], b32: [138, 215], narrow: [138] },
  setfsgid: { b64: [123], b32: [139, 216], narrow: [139] },
  kill: { b64: [62], b32: [37] },
  tkill: { b64: [200], b32: [238] },
  tgkill: { b64: [234], b32: [270] },
  rt_sigqueueinfo: { b64: [129], b32: [178] },
  rt_tgsigqueueinfo: { b64: [297], b32: [335] },
  chmod: { b64: [90], b32: [15] },
  fchmod: { b64: [91], b32: [94] },
  fchmodat: { b64: [268], b32: [306] },
  fchmodat2: { b64: [452], b32: [452] },
  chown: { b64: [92], b32: [182, 212], narrow: [182] },
  fchown: { b64: [93], b32: [95, 207], narrow: [95] },
  lchown: { b64: [94], b32: [16, 198], narrow: [16] },
  fchownat: { b64: [260], b32: [298] },
} as const satisfies Readonly<Record<string, Numbers>>

export type SystemCallName = keyof typeof SYSTEM_CALLS

export interface SystemCall {
  readonly name: SystemCallName
  readonly narrow: boolean
}

const byNumber = { b64: new Map<number, SystemCall>(), b32: new Map<number, SystemCall>() }
for (const [name, numbers] of Object.entries(SYSTEM_CALLS) as [SystemCallName, Numbers][]) {
  for (const number of numbers.b64) byNumber.b64.set(number, { name, narrow: false })
  for (const number of numbers.b32) {
    byNumber.b32.set(number, { name, narrow: numbers.narrow?.includes(number) ?? false })
  }
}

/** Null for a system call that nobody here asked for. */
export function findSystemCall(architecture: number, number: number): SystemCall | null {
  if (architecture === ARCHITECTURES.b64) return byNumber.b64.get(number) ?? null
  if (architecture === ARCHITECTURES.b32) return byNumber.b32.get(number) ?? null
  return null
}
