/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * The layout of what the kernel programs write into the ring buffer. `agent/sensors/ebpf/record-decoder.ts`
 * reads it by the same offsets: change both together. Everything is little-endian and starts on 8 bytes.
 */
#ifndef CORDON_RECORDS_H
#define CORDON_RECORDS_H

enum record_kind {
	RECORD_EXEC = 1,
	RECORD_EXIT = 2,
	RECORD_FORK = 3,
	RECORD_CONNECT_ATTEMPT = 4,
	RECORD_CONNECT_OUTCOME = 5,
	/* struct flow_record */
	RECORD_ACCEPT = 6,
	RECORD_CLOSE = 7,
	RECORD_DATAGRAM = 8,
	RECORD_LISTEN = 9,
	/* struct flow_record, followed by the message. */
	RECORD_DNS = 10,
	/* struct activity_header */
	RECORD_ACTIVITY = 11,
};

enum record_flag {
	FLAG_ARGUMENTS_TRUNCATED = 1,
	FLAG_EXECUTABLE_TRUNCATED = 2,
	FLAG_WORKING_DIRECTORY_TRUNCATED = 4,
	FLAG_FILE_KNOWN = 8,
	FLAG_CONNECTED = 16,
	/* The outcome's attempt reached the ring, so the reader has heard of this connection. */
	FLAG_ATTEMPT_TOLD = 32,
	/* No name leads to the program's file. */
	FLAG_UNLINKED = 64,
};

/* What a process did, in an activity_header. */
enum operation {
	OPERATION_RAW_SOCKET = 1, /* values: family, protocol */
	OPERATION_PTRACE = 2, /* values: request, pid as the caller sees it, depth of its pid namespace */
	OPERATION_VM_READ = 3, /* values: as PTRACE, without the request */
	OPERATION_VM_WRITE = 4,
	OPERATION_PROC_OPENED = 5, /* values: FMODE_* bits; text: path */
	OPERATION_DEVICE_OPENED = 6, /* values: FMODE_* bits, major, minor; text: path */
	OPERATION_MEMORY_FILE = 7, /* values: flags; text: name */
	OPERATION_LIBRARY = 8, /* values: device, inode; text: path */
	OPERATION_EXECUTABLE_MEMORY = 9, /* values: 1 for mmap and 2 for mprotect, address, bytes, writable; text: path */
	OPERATION_MODULE_LOAD = 10, /* text: path */
	OPERATION_MODULE_UNLOAD = 11, /* text: name */
	OPERATION_BPF = 12, /* values: command of bpf(2), program type; text: program name */
	OPERATION_UNSHARE = 13, /* values: CLONE_NEW* bits */
	OPERATION_SETNS = 14,
	OPERATION_CLONE = 15,
	OPERATION_MOUNT = 16, /* values: MOUNT_* below; texts: source and target, each ended by a zero; type */
	OPERATION_CREDENTIALS = 17, /* values: system call, three arguments, effective user, effective capabilities */
	OPERATION_ATTRIBUTES = 18, /* values: system call, mode or user, group; texts: see enum path_form */
	OPERATION_SCRIPT = 19, /* values: descriptor, position, bytes read, S_IFMT; texts: path, content */
	OPERATION_SIGNAL = 20, /* values: signal, pid */
	OPERATION_LOGON = 21, /* values: enum pam_function, result; texts: user, service, peer, terminal, by zeros */
};

enum mount_operation { MOUNT_MOUNTED = 1, MOUNT_UNMOUNTED = 2, MOUNT_MOVED = 3, MOUNT_PIVOTED = 4 };
enum pam_function { PAM_AUTHENTICATE = 1, PAM_OPEN_SESSION = 2, PAM_CLOSE_SESSION = 3 };

/* Slots of the counter array: records that did not fit, by kind; and those left out on purpose. */
enum counter_slot {
	COUNTER_EXEC_DROPPED = 0,
	COUNTER_EXIT_DROPPED = 1,
	COUNTER_FORK_DROPPED = 2,
	COUNTER_CONNECT_DROPPED = 3,
	COUNTER_ACCEPT_DROPPED = 4,
	COUNTER_CLOSE_DROPPED = 5,
	COUNTER_DATAGRAM_DROPPED = 6,
	COUNTER_LISTEN_DROPPED = 7,
	COUNTER_DNS_DROPPED = 8,
	/* Dropped activities: COUNTER_ACTIVITY_DROPPED + operation. */
	COUNTER_ACTIVITY_DROPPED = 9,
	/* Beyond what one process is told of making its memory executable. */
	COUNTER_MEMORY_LEFT_OUT = 40,
	COUNTER_SLOTS = 48,
	/* No count: see wakeup() in maps.bpf.h. */
	BELL_SLOT = COUNTER_SLOTS,
};

/* The command line may be 2 MB; what is copied of it is bounded. */
#define ARGUMENT_BYTES_MAX 8192
/* PATH_MAX. The directory walk fills a buffer of this size from its end. */
#define PATH_BYTES_MAX 4096
#define PATH_COMPONENTS_MAX 1024
#define ENVIRONMENT_BYTES_MAX 1024
#define ENVIRONMENT_VARIABLES_MAX 256
/* Of one variable. */
#define VARIABLE_BYTES_MAX 256
#define CGROUP_BYTES_MAX 512
#define CGROUP_LEVELS_MAX 5
#define SCRIPT_CHUNK_BYTES_MAX 4096
/* Of what one interpreter reads. */
#define SCRIPT_BYTES_MAX 65536
#define EXECUTABLE_MEMORY_TOLD_MAX 64
#define DNS_BYTES_MAX 1024
#define EXCLUDED_PROCESSES_MAX 256
#define CONNECTIONS_MAX 16384
#define FLOWS_MAX 16384
#define LIBRARIES_MAX 16384
#define INTERPRETERS_MAX 8192

struct record_header {
	__u32 length; /* 0: of the whole record */
	__u8 kind; /* 4 */
	__u8 flags; /* 5 */
	__u16 reserved; /* 6 */
	__u64 observed_ns; /* 8: CLOCK_MONOTONIC */
	__u32 pid; /* 16 */
	__u32 parent_pid; /* 20 */
	__u64 start_ticks; /* 24: as field 22 of /proc/PID/stat */
	__u64 parent_start_ticks; /* 32 */
};

/* 40: nothing more. */
struct fork_record {
	struct record_header header;
};

struct exit_record {
	struct record_header header;
	__u32 wait_status; /* 40: as wait(2) gives it */
	__u32 reserved; /* 44 */
};

enum namespace_slot {
	NAMESPACE_MOUNT,
	NAMESPACE_PID,
	NAMESPACE_NETWORK,
	NAMESPACE_UTS,
	NAMESPACE_IPC,
	NAMESPACE_CGROUP,
	NAMESPACE_USER,
	NAMESPACE_TIME,
	NAMESPACE_SLOTS,
};

struct exec_header {
	struct record_header header;
	__u32 user_id; /* 40 */
	__u32 group_id; /* 44 */
	__u32 session_id; /* 48 */
	__u32 argument_bytes; /* 52 */
	__u64 device; /* 56: st_dev */
	__u64 inode; /* 64 */
	__u64 size_bytes; /* 72 */
	__u64 changed_ns; /* 80: st_ctim */
	__u16 executable_bytes; /* 88 */
	__u16 working_directory_bytes; /* 90 */
	__u16 environment_bytes; /* 92 */
	__u16 cgroup_bytes; /* 94 */
	__u32 effective_user_id; /* 96 */
	__u32 effective_group_id; /* 100 */
	__u32 login_user_id; /* 104: the highest number when nobody logged on */
	__u32 terminal; /* 108: major in the upper 12 bits, minor in the lower 20; 0: none */
	__u32 namespaces[NAMESPACE_SLOTS]; /* 112: inodes */
	__u8 invoked_as[32]; /* 144: the beginning of the path that was given to execve(2) */
	/*
	 * 176: environment and names of the cgroup from its leaf upwards (each ends with a zero byte), arguments
	 * (likewise), executable, working directory.
	 */
};

struct connect_record {
	/* `observed_ns` is the time of the attempt in both kinds. */
	struct record_header header;
	__u64 socket; /* 40: names the attempt, together with its time */
	__u16 family; /* 48 */
	__u16 source_port; /* 50: host order, 0 when unknown */
	__u16 destination_port; /* 52: host order */
	__u8 protocol; /* 54: IPPROTO_* */
	__u8 ingress; /* 55: the first packet came from the peer */
	__u8 source_address[16]; /* 56: IPv4 in the first 4 bytes */
	__u8 destination_address[16]; /* 72 */
};

/* For LISTEN the source is what is listened on. */
struct flow_record {
	struct connect_record ends;
	__u64 duration_ns; /* 88: CLOSE */
	__u64 source_bytes; /* 96: CLOSE */
	__u64 destination_bytes; /* 104: CLOSE */
	__u32 message_bytes; /* 112: DNS: how many follow */
	__u32 reserved; /* 116 */
};

struct activity_header {
	struct record_header header;
	__u16 operation; /* 40 */
	__u16 first_bytes; /* 42: of the first text */
	__u16 second_bytes; /* 44 */
	__u16 path_form; /* 46 */
	__s64 result; /* 48: as the system call returned it */
	__u64 values[6]; /* 56 */
	/* 104: first text, second text. */
};

/* What the texts of an activity about a path are. */
enum path_form {
	/* The first text is the path, from the kernel's own objects. */
	PATH_OF_OBJECT = 0,
	/* The first text is the folder that the second, what the caller wrote, is relative to unless it is absolute. */
	PATH_OF_CALLER = 1,
};

#endif
