// SPDX-License-Identifier: Apache-2.0
/*
 * Gives memory back that the process holds without need: what malloc freed and kept, and pages of code and
 * constants that were needed for the start. The latter come again from the file when they are touched.
 */
#define _GNU_SOURCE
#include "node.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

/* Text relocations would be lost with their pages. */
static bool is_relocated_text(const struct dl_phdr_info *object) {
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = &object->dlpi_phdr[i];

    if (header->p_type != PT_DYNAMIC)
      continue;
    for (const ElfW(Dyn) *entry = (const void *)(object->dlpi_addr + header->p_vaddr); entry->d_tag != DT_NULL;
         entry++)
      if (entry->d_tag == DT_TEXTREL || (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL) != 0))
        return true;
  }
  return false;
}

/* Segments that nobody may write are as they are in the file, so dropping their pages loses nothing. */
static int forget_pages(struct dl_phdr_info *object, size_t size, void *unused) {
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

  (void)size;
  (void)unused;
  if (is_relocated_text(object))
    return 0;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = &object->dlpi_phdr[i];
    const uintptr_t start = object->dlpi_addr + header->p_vaddr;
    const uintptr_t first = (start + page - 1) & ~(page - 1);
    const uintptr_t end = (start + header->p_filesz) & ~(page - 1);

    if (header->p_type == PT_LOAD && (header->p_flags & PF_W) == 0 && end > first)
      madvise((void *)first, end - first, MADV_DONTNEED);
  }
  return 0;
}

static napi_value release_memory(napi_env env, napi_callback_info info) {
  if (!read_arguments(env, info, 0, NULL))
    return NULL;
  malloc_trim(0);
  dl_iterate_phdr(forget_pages, NULL);
  return undefined_value(env);
}

bool export_memory(napi_env env, napi_value exports) {
  return export_function(env, exports, "releaseMemory", release_memory);
}
