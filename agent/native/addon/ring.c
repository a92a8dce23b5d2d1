// SPDX-License-Identifier: Apache-2.0
#include "ring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int ring_map(struct ring *ring, int map, size_t data_bytes) {
  const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
  void *consumed = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);

  if (consumed == MAP_FAILED)
    return errno;
  /*
   * The kernel offers the data twice in a row, so that a record never wraps. Mapping it once and copying a
   * wrapped record in two pieces halves the memory that is counted as the agent's.
   */
  void *produced = mmap(NULL, page_bytes + data_bytes, PROT_READ, MAP_SHARED, map, (off_t)page_bytes);

  if (produced == MAP_FAILED) {
    const int error = errno;

    munmap(consumed, page_bytes);
    return error;
  }
  ring->consumed = consumed;
  ring->produced = produced;
  ring->data_bytes = data_bytes;
  ring->page_bytes = page_bytes;
  return 0;
}

void ring_unmap(struct ring *ring) {
  if (ring->produced == NULL)
    return;
  munmap(ring->consumed, ring->page_bytes);
  munmap(ring->produced, ring->page_bytes + ring->data_bytes);
  ring->produced = NULL;
}

static size_t pad(size_t length) {
  return (length + 7) & ~(size_t)7;
}

static void copy_out(const struct ring *ring, unsigned long position, uint8_t *target, size_t length) {
  const uint8_t *data = ring->produced + ring->page_bytes;
  const size_t offset = position & (ring->data_bytes - 1);
  const size_t before_end = ring->data_bytes - offset;
  const size_t first = length < before_end ? length : before_end;

  memcpy(target, data + offset, first);
  memcpy(target + first, data, length - first);
}

size_t ring_drain(struct ring *ring, uint8_t *target, size_t capacity) {
  const uint8_t *data = ring->produced + ring->page_bytes;
  unsigned long position = __atomic_load_n(ring->consumed, __ATOMIC_RELAXED);
  const unsigned long end = __atomic_load_n((unsigned long *)(void *)ring->produced, __ATOMIC_ACQUIRE);
  size_t written = 0;

  while (position < end) {
    /* The record's header is 8 bytes on an 8-byte boundary: it never wraps. */
    const uint32_t *header = (const uint32_t *)(const void *)(data + (position & (ring->data_bytes - 1)));
    const uint32_t state = __atomic_load_n(header, __ATOMIC_ACQUIRE);
    const size_t length = state & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);

    /* Another processor is still writing this one: order is kept by waiting for it. */
    if (state & BPF_RINGBUF_BUSY_BIT)
      break;
    if (!(state & BPF_RINGBUF_DISCARD_BIT)) {
      if (written + pad(length) > capacity)
        break;
      copy_out(ring, position + BPF_RINGBUF_HDR_SZ, target + written, length);
      written += pad(length);
    }
    position += pad(length + BPF_RINGBUF_HDR_SZ);
  }
  __atomic_store_n(ring->consumed, position, __ATOMIC_RELEASE);
  return written;
}
