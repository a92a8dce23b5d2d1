// SPDX-License-Identifier: Apache-2.0
/* Files that are made, changed and removed. All but file-create work on what file-create left in the same folder. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "activity.h"

static const char content[] = "harmless\n";

/* The lure's name differs in its first byte. */
static long create_once(struct worker *worker, long index) {
  char *path = worker->memory->path;

  work_path(worker, "activity", index, path);
  swap_begin(worker, strrchr(path, '/') + 1, 'A', 1);
  const long fd = CALL4(worker, SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

  swap_end(worker);
  if (fd < 0)
    return fd;
  char taken[PATH_BYTES], self[64];

  sprintf(self, "/proc/self/fd/%ld", fd);
  const ssize_t length = readlink(self, taken, sizeof(taken) - 1);

  taken[length < 0 ? 0 : length] = '\0';
  if (strstr(taken, "/Activity-") != NULL)
    worker->lured++;
  release(worker, (int)fd);
  return 0;
}

static long write_once(struct worker *worker, long index) {
  work_path(worker, "activity", index, worker->memory->path);
  const long fd = CALL4(worker, SYS_openat, AT_FDCWD, worker->memory->path, O_WRONLY | O_APPEND | O_CLOEXEC, 0);

  if (fd < 0)
    return fd;
  memcpy(worker->memory->data, content, sizeof(content));
  const long written = CALL3(worker, SYS_write, fd, worker->memory->data, sizeof(content) - 1);

  close((int)fd);
  return written;
}

/* Both names: of what is there, and of what comes of it. */
static void put_paths(struct worker *worker, long index, const char *stem) {
  work_path(worker, "activity", index, worker->memory->path);
  work_path(worker, stem, index, worker->memory->other);
}

static long rename_once(struct worker *worker, long index) {
  put_paths(worker, index, "renamed");
  return CALL5(worker, SYS_renameat2, AT_FDCWD, worker->memory->path, AT_FDCWD, worker->memory->other, 0);
}

static long link_once(struct worker *worker, long index) {
  put_paths(worker, index, "linked");
  return CALL5(worker, SYS_linkat, AT_FDCWD, worker->memory->path, AT_FDCWD, worker->memory->other, 0);
}

static long symlink_once(struct worker *worker, long index) {
  put_paths(worker, index, "symlinked");
  return CALL3(worker, SYS_symlinkat, worker->memory->path, AT_FDCWD, worker->memory->other);
}

static long delete_once(struct worker *worker, long index) {
  work_path(worker, "activity", index, worker->memory->path);
  return CALL3(worker, SYS_unlinkat, AT_FDCWD, worker->memory->path, 0);
}

/* From 0644 to 0755, which makes it a program. */
static long mode_once(struct worker *worker, long index) {
  work_path(worker, "activity", index, worker->memory->path);
  return CALL3(worker, SYS_fchmodat, AT_FDCWD, worker->memory->path, 0755);
}

static long owner_once(struct worker *worker, long index) {
  work_path(worker, "activity", index, worker->memory->path);
  return CALL5(worker, SYS_fchownat, AT_FDCWD, worker->memory->path, 65534, 65534, 0);
}

static long attribute_once(struct worker *worker, long index) {
  work_path(worker, "activity", index, worker->memory->path);
  strcpy(worker->memory->other, "user.activity");
  memcpy(worker->memory->data, content, sizeof(content));
  return CALL5(worker, SYS_setxattr, worker->memory->path, worker->memory->other, worker->memory->data, sizeof(content) - 1, 0);
}

#define ALL (COMPAT | DEEP | STRANGE | THREADS)

const struct behaviour file_behaviours[] = {
    {"file-create", "makes FOLDER/activity-N", ALL | RING | SWAP | HOLD, 0, NULL, make_folders, create_once, NULL},
    {"file-write", "appends to them", ALL | RING, 0, NULL, NULL, write_once, NULL},
    {"file-rename", "renames them to renamed-N", ALL | RING, 0, NULL, NULL, rename_once, NULL},
    {"file-link", "links them as linked-N", ALL | RING, 0, NULL, NULL, link_once, NULL},
    {"file-symlink", "points symlinked-N at them", ALL | RING, 0, NULL, NULL, symlink_once, NULL},
    {"file-delete", "deletes them", ALL | RING, 0, NULL, NULL, delete_once, NULL},
    {"file-chmod", "makes them programs", ALL, 0, NULL, NULL, mode_once, NULL},
    {"file-chown", "gives them to nobody", ALL, 0, NULL, NULL, owner_once, NULL},
    {"file-setxattr", "gives them user.activity", ALL | RING, 0, NULL, NULL, attribute_once, NULL},
    {0},
};
