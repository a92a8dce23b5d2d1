// SPDX-License-Identifier: Apache-2.0
/* What the parts of make-activity share: options, workers, calls in three dialects, and how behaviours are told. */
#ifndef CORDON_ACTIVITY_H
#define CORDON_ACTIVITY_H

#include <linux/bpf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define PATH_BYTES 4096
#define DATA_BYTES 65536
#define THREADS_MAX 64
#define COUNT_MAX 1000000
#define DEPTH 200
/* What the program that is run is told to end with, and what the lure in its place, this program, ends with. */
#define PROGRAM_STATUS 3
#define LURE_STATUS 2
#define PROGRAM_NAME "tiny-exit"

/* Options that not every behaviour has. */
enum variant {
  COMPAT = 1,
  RING = 2,
  SWAP = 4,
  DEEP = 8,
  STRANGE = 16,
  THREADS = 32,
  HOLD = 64,
  TCP = 128,
  SPLIT = 256,
  RELATIVE = 512,
  /* With COMPAT: all calls of sockets as one number, socketcall(2). */
  SOCKETCALL = 1024,
};

struct options {
  long count;
  int variants;
  long threads;
  long port;
  long pid;
  long signal;
  long code;
  long bytes;
  /* Copied below 4 GB; empty when not given. */
  char *folder;
  char *program;
  char *path;
  char *address;
  char *name;
};

/* All that system calls are told lies in here, below 4 GB, where 32-bit calls reach it. */
struct memory {
  char path[PATH_BYTES];
  char other[PATH_BYTES];
  struct sockaddr_storage address;
  struct sockaddr_storage peer;
  socklen_t peer_bytes;
  /* Layouts differ between dialects: written by put_pointers, put_vector and put_message alone. */
  uint64_t pointers[8];
  uint64_t vectors[4];
  uint64_t message[8];
  uint32_t socketcall[6];
  char arguments[4][64];
  union bpf_attr bpf;
  long word;
  char data[DATA_BYTES];
};

struct ring {
  int fd;
  char *entries;
  void *submissions;
  unsigned *tail, *mask, *array;
  unsigned *completion_head, *completion_mask;
  char *completions;
};

/* Overwrites a byte or two of an argument while the call that was told it runs. */
struct swap {
  pthread_t thread;
  atomic_int phase;
  volatile unsigned char *at;
  uint16_t lure;
  int bytes;
  unsigned delay;
};

struct worker {
  const struct options *options;
  const struct behaviour *behaviour;
  pthread_t thread;
  pthread_barrier_t *done, *ended;
  long number;
  struct memory *memory;
  struct ring ring;
  struct swap swap;

  /* Of the behaviour: its child, what it has open, where it listens. */
  pid_t child;
  int fd, other_fd;
  int port, lure_port;
  socklen_t address_bytes;

  long made, failed, lured;
  /* The first error, as errno. */
  int error;
  /* A number for each time, called as the behaviour says. */
  long *notes;
  long notes_count;
};

/* The three give 0 or more, or a negative errno; `prepare` and `finish` may be absent. */
struct behaviour {
  const char *name;
  const char *summary;
  int variants;
  /* Its calls are refused, and are told all the same. */
  int may_fail;
  /* What `notes` are called in the report. */
  const char *notes;
  long (*prepare)(struct worker *worker);
  long (*once)(struct worker *worker, long index);
  void (*finish)(struct worker *worker);
};

extern const struct behaviour process_behaviours[], file_behaviours[], memory_behaviours[], network_behaviours[],
    name_behaviours[], kernel_behaviours[];

/* calls.c */
long make_call(struct worker *worker, long number, long first, long second, long third, long fourth, long fifth, long sixth);
#define CALL6(worker, number, a, b, c, d, e, f) \
  make_call(worker, number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define CALL5(worker, number, a, b, c, d, e) CALL6(worker, number, a, b, c, d, e, 0)
#define CALL4(worker, number, a, b, c, d) CALL5(worker, number, a, b, c, d, 0)
#define CALL3(worker, number, a, b, c) CALL4(worker, number, a, b, c, 0)
#define CALL2(worker, number, a, b) CALL3(worker, number, a, b, 0)
#define CALL1(worker, number, a) CALL2(worker, number, a, 0)
void *low_memory(size_t bytes);
char *low_copy(const char *text);
void *put_pointers(struct worker *worker, const char *const *texts);
void *put_vector(struct worker *worker, int index, const void *base, size_t bytes);
void *put_message(struct worker *worker, const void *name, socklen_t name_bytes, int vectors);

/* ring.c: false when io_uring has no such operation. */
int ring_open(struct ring *ring);
int ring_call(struct ring *ring, long number, const long *arguments, long *result);

/* work.c */
/* Held while a file is written that is to be run, and while children start: they would hold it open, and it would not run. */
extern pthread_mutex_t program_writing;
int has(const struct worker *worker, int variant);
void note(struct worker *worker, long value);
void release(struct worker *worker, int fd);
void swap_begin(struct worker *worker, void *at, uint16_t lure, int bytes);
void swap_end(struct worker *worker);
long start_swapper(struct worker *worker);
void work_path(const struct worker *worker, const char *stem, long index, char *out);
long make_folders(struct worker *worker);
long copy_file(const char *from, const char *to);
long wait_for(pid_t pid, int *status);
socklen_t put_address(struct sockaddr_storage *out, const char *text, int port);
int port_of(const struct sockaddr_storage *address);

#endif
