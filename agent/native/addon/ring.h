// SPDX-License-Identifier: Apache-2.0
/*
 * The reading side of a BPF ring buffer (BPF_MAP_TYPE_RINGBUF), over shared memory: no system call, also when
 * there is nothing to read.
 */
#ifndef CORDON_RING_H
#define CORDON_RING_H

#include <stddef.h>
#include <stdint.h>

struct ring {
  /* One page that this side writes: how far it has read. */
  unsigned long *consumed;
  /* One page that the kernel writes (how far it has reserved), followed by the data. */
  uint8_t *produced;
  size_t data_bytes;
  size_t page_bytes;
};

/* Returns 0 or an errno. `data_bytes` is the size that the map was created with. */
int ring_map(struct ring *ring, int map, size_t data_bytes);
void ring_unmap(struct ring *ring);
/* Copies whole records, each padded to 8 bytes, and returns the bytes written. */
size_t ring_drain(struct ring *ring, uint8_t *target, size_t capacity);

#endif
