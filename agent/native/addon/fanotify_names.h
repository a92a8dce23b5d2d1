// SPDX-License-Identifier: Apache-2.0
/* <sys/fanotify.h>, and the names that older copies of it lack (fanotify_init(2), fanotify_mark(2)). */
#ifndef CORDON_FANOTIFY_NAMES_H
#define CORDON_FANOTIFY_NAMES_H

#include <stdbool.h>
#include <sys/fanotify.h>

#ifndef FAN_MARK_FILESYSTEM
#define FAN_MARK_FILESYSTEM 0x100
#endif
#ifndef FAN_MOVED_TO
#define FAN_MOVED_TO 0x80
#define FAN_CREATE 0x100
#define FAN_DELETE 0x200
#endif
#ifndef FAN_REPORT_DFID_NAME
#define FAN_REPORT_DFID_NAME 0xc00
#define FAN_EVENT_INFO_TYPE_DFID_NAME 2
#endif
#ifndef FAN_RENAME
#define FAN_RENAME 0x10000000
#define FAN_EVENT_INFO_TYPE_OLD_DFID_NAME 10
#define FAN_EVENT_INFO_TYPE_NEW_DFID_NAME 12
#endif

#endif
