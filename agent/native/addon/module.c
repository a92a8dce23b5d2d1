// SPDX-License-Identifier: Apache-2.0
/*
 * Cordon's native addon for Linux: the system calls that Node does not have. Node-API alone, so that one binary
 * serves every Node version. `agent/native/addon.ts` describes each function.
 */
#include "node.h"

NAPI_MODULE_INIT() {
  if (!export_kernel_programs(env, exports) || !export_fanotify(env, exports) ||
      !export_descriptors(env, exports) || !export_pidfd(env, exports) ||
      !export_file_attributes(env, exports) || !export_sandbox(env, exports) ||
      !export_notify(env, exports) || !export_memory(env, exports) ||
      !export_netlink(env, exports)) {
    napi_throw_error(env, "ERR_NATIVE_EXPORTS", "the native addon cannot register its functions");
    return NULL;
  }
  return exports;
}
