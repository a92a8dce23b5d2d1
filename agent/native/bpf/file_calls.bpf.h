/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Attributes of files, and mounts: where the paths are the caller's they can have changed since. */
#ifndef CORDON_FILE_CALLS_BPF_H
#define CORDON_FILE_CALLS_BPF_H

/* Adds what the path of the caller is relative to: the open folder, or else the working directory. */
static __always_inline void add_folder(struct activity_record *record, struct task_struct *task, __s32 descriptor)
{
	struct file *file = descriptor >= 0 ? file_of(task, descriptor) : NULL;

	if (file) {
		add_path_of(record, file);
		return;
	}
	struct fs_struct *directories = BPF_CORE_READ(task, fs);
	struct path path;

	BPF_CORE_READ_INTO(&path, directories, pwd);
	add_path(record, &path);
}

#define WORKING_DIRECTORY -100

static __noinline int tell_attributes(struct task_struct *task, const struct call *call)
{
	struct activity_record *record = begin_activity(task, OPERATION_ATTRIBUTES);

	if (!record)
		return 0;
	record->header.values[0] = call->number;
	record->header.path_form = PATH_OF_CALLER;
	switch (call->number) {
	case CALL_FCHMOD:
	case CALL_FCHOWN:
	case CALL_FSETXATTR:
	case CALL_FREMOVEXATTR: {
		struct file *file = file_of(task, call->first);

		if (!file)
			return 0;
		record->header.path_form = PATH_OF_OBJECT;
		record->header.values[1] = call->second;
		record->header.values[2] = call->third;
		add_path_of(record, file);
		if (call->number == CALL_FSETXATTR || call->number == CALL_FREMOVEXATTR)
			add_callers_text(record, call->second, 255);
		tell_activity(record);
		return 0;
	}
	case CALL_FCHMODAT:
	case CALL_FCHMODAT2:
	case CALL_FCHOWNAT:
		record->header.values[1] = call->third;
		record->header.values[2] = call->fourth;
		add_folder(record, task, call->first);
		add_callers_text(record, call->second, PATH_BYTES_MAX);
		break;
	default:
		record->header.values[1] = call->second;
		record->header.values[2] = call->third;
		add_folder(record, task, WORKING_DIRECTORY);
		add_callers_text(record, call->first, PATH_BYTES_MAX);
		if (call->number >= CALL_SETXATTR && call->number <= CALL_LREMOVEXATTR)
			add_callers_text(record, call->second, 255);
	}
	tell_activity(record);
	return 0;
}

/* The paths are what the caller wrote: the kernel keeps no other trace of them by then. */
static __noinline int tell_mount(struct task_struct *task, const struct call *call)
{
	struct activity_record *record = begin_activity(task, OPERATION_MOUNT);

	if (!record)
		return 0;
	record->header.result = call->result;
	record->header.path_form = PATH_OF_CALLER;
	switch (call->number) {
	case CALL_MOUNT:
		record->header.values[0] = MOUNT_MOUNTED;
		add_callers_text(record, call->first, 1024);
		record->header.values[1] = record->header.second_bytes;
		add_callers_text(record, call->second, 1024);
		record->header.values[2] = record->header.second_bytes;
		add_callers_text(record, call->third, 32);
		break;
	case CALL_UMOUNT2:
		record->header.values[0] = MOUNT_UNMOUNTED;
		add_callers_text(record, call->first, 1024);
		record->header.values[2] = record->header.second_bytes;
		break;
	case CALL_PIVOT_ROOT:
		record->header.values[0] = MOUNT_PIVOTED;
		add_callers_text(record, call->first, 1024);
		record->header.values[1] = record->header.second_bytes;
		add_callers_text(record, call->second, 1024);
		record->header.values[2] = record->header.second_bytes;
		break;
	default:
		record->header.values[0] = MOUNT_MOVED;
		add_callers_text(record, call->second, 1024);
		record->header.values[1] = record->header.second_bytes;
		add_callers_text(record, call->fourth, 1024);
		record->header.values[2] = record->header.second_bytes;
	}
	tell_activity(record);
	return 0;
}

#endif
