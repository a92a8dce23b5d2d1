// SPDX-License-Identifier: Apache-2.0
/* What behaviours share: names of files, addresses, children, and the thread that overwrites arguments. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "activity.h"

pthread_mutex_t program_writing = PTHREAD_MUTEX_INITIALIZER;

enum { IDLE, BEGUN, OVERWRITTEN };

int has(const struct worker *worker, int variant) {
  return (worker->options->variants & variant) != 0;
}

void note(struct worker *worker, long value) {
  if (worker->notes_count < worker->options->count)
    worker->notes[worker->notes_count++] = value;
}

/* With --hold what was opened stays open until the process ends. */
void release(struct worker *worker, int fd) {
  if (fd >= 0 && !has(worker, HOLD))
    close(fd);
}

static void *overwrite(void *argument) {
  struct swap *swap = argument;

  for (;;) {
    while (atomic_load(&swap->phase) != BEGUN)
      ;
    /* Another moment each time: before, while and after the kernel takes its copy. */
    for (volatile unsigned waited = 0; waited < swap->delay; waited++)
      ;
    /* One store, so that the kernel never sees half of both. */
    if (swap->bytes == 1)
      *swap->at = (unsigned char)swap->lure;
    else
      *(volatile uint16_t *)swap->at = swap->lure;
    atomic_store(&swap->phase, OVERWRITTEN);
  }
  return NULL;
}

long start_swapper(struct worker *worker) {
  return -pthread_create(&worker->swap.thread, NULL, overwrite, &worker->swap);
}

void swap_begin(struct worker *worker, void *at, uint16_t lure, int bytes) {
  if (!has(worker, SWAP))
    return;
  worker->swap.at = at;
  worker->swap.lure = lure;
  worker->swap.bytes = bytes;
  worker->swap.delay = (worker->swap.delay * 7 + 13) % 4096;
  atomic_store(&worker->swap.phase, BEGUN);
}

/* What was overwritten is written anew before the next time. */
void swap_end(struct worker *worker) {
  if (!has(worker, SWAP))
    return;
  while (atomic_load(&worker->swap.phase) != OVERWRITTEN)
    ;
  atomic_store(&worker->swap.phase, IDLE);
}

/* FOLDER/STEM-INDEX; DEEP folders further down, and with characters that confuse readers, as asked. */
void work_path(const struct worker *worker, const char *stem, long index, char *out) {
  char *at = out + snprintf(out, PATH_BYTES - 2 * DEPTH - 300, "%s", worker->options->folder);

  for (int depth = 0; has(worker, DEEP) && depth < DEPTH; depth++)
    at += sprintf(at, "/d");
  sprintf(at, "/%.100s-%ld%s", stem, index, has(worker, STRANGE) ? "\n\x1b[31m\xff\xfe\"\\" : "");
}

long make_folders(struct worker *worker) {
  char path[PATH_BYTES];
  int length = snprintf(path, PATH_BYTES - 2 * DEPTH - 300, "%s", worker->options->folder);

  for (int depth = 0; has(worker, DEEP) && depth < DEPTH; depth++) {
    length += sprintf(path + length, "/d");
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
      return -errno;
  }
  return 0;
}

/* A program that is copied can be run. */
long copy_file(const char *from, const char *to) {
  pthread_mutex_lock(&program_writing);
  const int input = open(from, O_RDONLY | O_CLOEXEC);
  const int output = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
  struct stat facts;
  long result = input < 0 || output < 0 || fstat(input, &facts) < 0 ? -errno : 0;

  while (result == 0 && facts.st_size > 0) {
    const ssize_t sent = sendfile(output, input, NULL, (size_t)facts.st_size);

    if (sent <= 0)
      result = sent < 0 ? -errno : -EIO;
    facts.st_size -= sent;
  }
  if (input >= 0)
    close(input);
  if (output >= 0)
    close(output);
  pthread_mutex_unlock(&program_writing);
  return result;
}

long wait_for(pid_t pid, int *status) {
  pid_t waited;

  do
    waited = waitpid(pid, status, 0);
  while (waited < 0 && errno == EINTR);
  return waited < 0 ? -errno : 0;
}

/* The length of the address, 0 when the text is none. */
socklen_t put_address(struct sockaddr_storage *out, const char *text, int port) {
  struct sockaddr_in *four = (struct sockaddr_in *)out;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;

  memset(out, 0, sizeof(*out));
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    return sizeof(*four);
  }
  if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)port);
    return sizeof(*six);
  }
  return 0;
}

/* Both families keep the port in the same place. */
int port_of(const struct sockaddr_storage *address) {
  return ntohs(((const struct sockaddr_in *)address)->sin_port);
}
