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
};

enum record_flag {
	FLAG_ARGUMENTS_TRUNCATED = 1,
	FLAG_EXECUTABLE_TRUNCATED = 2,
	FLAG_WORKING_DIRECTORY_TRUNCATED = 4,
	FLAG_FILE_KNOWN = 8,
	FLAG_CONNECTED = 16,
	/* The outcome's attempt reached the ring, so the reader has heard of this connection. */
	FLAG_ATTEMPT_TOLD = 32,
};

/* Slots of the counter array: records that did not fit, by kind. */
enum counter_slot {
	COUNTER_EXEC_DROPPED = 0,
	COUNTER_EXIT_DROPPED = 1,
	COUNTER_FORK_DROPPED = 2,
	COUNTER_CONNECT_DROPPED = 3,
	COUNTER_SLOTS = 4,
};

/* The command line may be 2 MB; what is copied of it is bounded. */
#define ARGUMENT_BYTES_MAX 8192
/* PATH_MAX. The directory walk fills a buffer of this size from its end. */
#define PATH_BYTES_MAX 4096
#define PATH_COMPONENTS_MAX 1024
#define EXCLUDED_PROCESSES_MAX 256
#define CONNECTIONS_MAX 16384

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
	__u32 reserved; /* 92 */
	/* 96: arguments (each ends with a zero byte), executable, working directory. */
};

struct connect_record {
	/* `observed_ns` is the time of the attempt in both kinds. */
	struct record_header header;
	__u64 socket; /* 40: names the attempt, together with its time */
	__u16 family; /* 48 */
	__u16 source_port; /* 50: host order, 0 when unknown */
	__u16 destination_port; /* 52: host order */
	__u16 reserved; /* 54 */
	__u8 source_address[16]; /* 56: IPv4 in the first 4 bytes */
	__u8 destination_address[16]; /* 72 */
};

#endif
