/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* System calls: their numbers, and a call as both entries of the kernel make it. */
#ifndef CORDON_CALLS_BPF_H
#define CORDON_CALLS_BPF_H

struct call {
	__u64 number;
	__s64 result;
	__u64 first;
	__u64 second;
	__u64 third;
	__u64 fourth;
	__u64 fifth;
};

#define CALL_READ 0
#define CALL_OPEN 2
#define CALL_MMAP 9
#define CALL_MPROTECT 10
#define CALL_PREAD64 17
#define CALL_SOCKET 41
#define CALL_ACCEPT 43
#define CALL_BIND 49
#define CALL_LISTEN 50
#define CALL_CREAT 85
#define CALL_CHMOD 90
#define CALL_FCHMOD 91
#define CALL_CHOWN 92
#define CALL_FCHOWN 93
#define CALL_LCHOWN 94
#define CALL_PTRACE 101
#define CALL_SETUID 105
#define CALL_SETGID 106
#define CALL_SETREUID 113
#define CALL_SETREGID 114
#define CALL_SETGROUPS 116
#define CALL_SETRESUID 117
#define CALL_SETRESGID 119
#define CALL_SETFSUID 122
#define CALL_SETFSGID 123
#define CALL_CAPSET 126
#define CALL_PIVOT_ROOT 155
#define CALL_MOUNT 165
#define CALL_UMOUNT2 166
#define CALL_INIT_MODULE 175
#define CALL_DELETE_MODULE 176
#define CALL_SETXATTR 188
#define CALL_LSETXATTR 189
#define CALL_FSETXATTR 190
#define CALL_REMOVEXATTR 197
#define CALL_LREMOVEXATTR 198
#define CALL_FREMOVEXATTR 199
#define CALL_OPENAT 257
#define CALL_FCHOWNAT 260
#define CALL_FCHMODAT 268
#define CALL_UNSHARE 272
#define CALL_ACCEPT4 288
#define CALL_OPEN_BY_HANDLE_AT 304
#define CALL_SETNS 308
#define CALL_PROCESS_VM_READV 310
#define CALL_PROCESS_VM_WRITEV 311
#define CALL_FINIT_MODULE 313
#define CALL_MEMFD_CREATE 319
#define CALL_BPF 321
#define CALL_MOVE_MOUNT 429
#define CALL_OPENAT2 437
#define CALL_FCHMODAT2 452
#define CALL_NONE 0xffff

/* thread_info.status: the call came by the 32-bit entry (TS_COMPAT). */
#define STATUS_COMPAT 2

/* Numbers of the 32-bit table (arch/x86/entry/syscalls/syscall_32.tbl) as those of x86-64. */
static __always_inline __u64 number_of_compat(__u64 number)
{
	switch (number) {
	case 3: return CALL_READ;
	case 5: return CALL_OPEN;
	case 8: return CALL_CREAT;
	case 15: return CALL_CHMOD;
	case 16: return CALL_LCHOWN;
	case 198: return CALL_LCHOWN;
	case 21: return CALL_MOUNT;
	case 23: return CALL_SETUID;
	case 213: return CALL_SETUID;
	case 26: return CALL_PTRACE;
	case 46: return CALL_SETGID;
	case 214: return CALL_SETGID;
	case 52: return CALL_UMOUNT2;
	case 22: return CALL_UMOUNT2;
	case 70: return CALL_SETREUID;
	case 203: return CALL_SETREUID;
	case 71: return CALL_SETREGID;
	case 204: return CALL_SETREGID;
	case 81: return CALL_SETGROUPS;
	case 206: return CALL_SETGROUPS;
	case 94: return CALL_FCHMOD;
	case 95: return CALL_FCHOWN;
	case 207: return CALL_FCHOWN;
	case 125: return CALL_MPROTECT;
	case 128: return CALL_INIT_MODULE;
	case 129: return CALL_DELETE_MODULE;
	case 138: return CALL_SETFSUID;
	case 215: return CALL_SETFSUID;
	case 139: return CALL_SETFSGID;
	case 216: return CALL_SETFSGID;
	case 164: return CALL_SETRESUID;
	case 208: return CALL_SETRESUID;
	case 170: return CALL_SETRESGID;
	case 210: return CALL_SETRESGID;
	case 180: return CALL_PREAD64;
	case 182: return CALL_CHOWN;
	case 212: return CALL_CHOWN;
	case 185: return CALL_CAPSET;
	case 192: return CALL_MMAP;
	case 217: return CALL_PIVOT_ROOT;
	case 226: return CALL_SETXATTR;
	case 227: return CALL_LSETXATTR;
	case 228: return CALL_FSETXATTR;
	case 235: return CALL_REMOVEXATTR;
	case 236: return CALL_LREMOVEXATTR;
	case 237: return CALL_FREMOVEXATTR;
	case 295: return CALL_OPENAT;
	case 298: return CALL_FCHOWNAT;
	case 306: return CALL_FCHMODAT;
	case 310: return CALL_UNSHARE;
	case 342: return CALL_OPEN_BY_HANDLE_AT;
	case 346: return CALL_SETNS;
	case 347: return CALL_PROCESS_VM_READV;
	case 348: return CALL_PROCESS_VM_WRITEV;
	case 350: return CALL_FINIT_MODULE;
	case 356: return CALL_MEMFD_CREATE;
	case 357: return CALL_BPF;
	case 359: return CALL_SOCKET;
	case 361: return CALL_BIND;
	case 363: return CALL_LISTEN;
	case 364: return CALL_ACCEPT4;
	case 429: return CALL_MOVE_MOUNT;
	case 437: return CALL_OPENAT2;
	case 452: return CALL_FCHMODAT2;
	}
	return CALL_NONE;
}

#endif
