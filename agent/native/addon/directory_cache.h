// SPDX-License-Identifier: Apache-2.0
/*
 * File handle to path of directories. Within one batch a path is looked up once. Past the batch it is used only
 * when the directory can no longer be opened, which is how the files of a removed tree still get their paths.
 */
#ifndef CORDON_DIRECTORY_CACHE_H
#define CORDON_DIRECTORY_CACHE_H

#include <stdint.h>

#define DIRECTORY_CACHE_SLOTS 512
/* MAX_HANDLE_SZ of name_to_handle_at(2), with the file system's id in front. */
#define DIRECTORY_KEY_BYTES_MAX (8 + 8 + 128)

struct directory_entry {
  uint8_t key[DIRECTORY_KEY_BYTES_MAX];
  uint16_t key_bytes;
  uint16_t path_bytes;
  uint32_t batch;
  uint32_t generation;
  char *path;
};

struct directory_cache {
  struct directory_entry slots[DIRECTORY_CACHE_SLOTS];
  uint32_t batch;
  /* Moves on when a directory is renamed: older paths may no longer be true. */
  uint32_t generation;
};

/* The slot of the key. `path` is NULL when the slot held another key, which is then forgotten. */
struct directory_entry *directory_cache_slot(struct directory_cache *cache, const uint8_t *key, uint16_t key_bytes);
/* Keeps a copy. On lack of memory the slot stays empty. */
void directory_cache_store(struct directory_cache *cache, struct directory_entry *entry, const char *path,
                           uint16_t path_bytes);
void directory_cache_clear(struct directory_cache *cache);

#endif
