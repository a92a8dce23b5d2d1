// SPDX-License-Identifier: Apache-2.0
#include "directory_cache.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash(const uint8_t *bytes, uint16_t length) {
  uint32_t value = 2166136261u;

  for (uint16_t index = 0; index < length; index++)
    value = (value ^ bytes[index]) * 16777619u;
  return value;
}

static void forget(struct directory_entry *entry) {
  free(entry->path);
  entry->path = NULL;
  entry->path_bytes = 0;
}

struct directory_entry *directory_cache_slot(struct directory_cache *cache, const uint8_t *key, uint16_t key_bytes) {
  struct directory_entry *entry = &cache->slots[hash(key, key_bytes) % DIRECTORY_CACHE_SLOTS];

  if (entry->key_bytes != key_bytes || memcmp(entry->key, key, key_bytes) != 0) {
    forget(entry);
    memcpy(entry->key, key, key_bytes);
    entry->key_bytes = key_bytes;
  }
  return entry;
}

void directory_cache_store(struct directory_cache *cache, struct directory_entry *entry, const char *path,
                           uint16_t path_bytes) {
  forget(entry);
  entry->path = malloc(path_bytes > 0 ? path_bytes : 1);
  if (entry->path == NULL)
    return;
  memcpy(entry->path, path, path_bytes);
  entry->path_bytes = path_bytes;
  entry->batch = cache->batch;
  entry->generation = cache->generation;
}

void directory_cache_clear(struct directory_cache *cache) {
  for (int slot = 0; slot < DIRECTORY_CACHE_SLOTS; slot++)
    forget(&cache->slots[slot]);
}
