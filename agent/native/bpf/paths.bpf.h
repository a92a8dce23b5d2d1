/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Absolute paths inside the kernel: from a dentry up to the root of the mount namespace, across mounts. The
 * buffer is filled from its end, so that the bytes come out in reading order and the agent copies them once.
 * A rename during the walk can mix old and new names, as it can for any reader of /proc.
 */
#ifndef CORDON_PATHS_BPF_H
#define CORDON_PATHS_BPF_H

/* One name is at most 255 bytes: room for one more past the mask, which is what the verifier can see. */
struct path_buffer {
	__u8 bytes[PATH_BYTES_MAX + 256];
};

struct path_walk {
	struct path_buffer *buffer;
	struct dentry *dentry;
	struct mount *mount;
	struct dentry *mount_root;
	/* Where the path begins; PATH_BYTES_MAX is its end. */
	__u32 start;
	bool complete;
};

static long step_up(__u32 index, void *context)
{
	struct path_walk *walk = context;
	/* Locals, because a field of our own structure inside BPF_CORE_READ would be looked for in the kernel. */
	struct dentry *dentry = walk->dentry;
	struct mount *mount = walk->mount;
	struct dentry *parent = BPF_CORE_READ(dentry, d_parent);

	/* A name without a folder, such as that of a memfd, is its own parent and all there is of the path. */
	const bool is_alone = dentry == parent && dentry != walk->mount_root;

	if (dentry == walk->mount_root) {
		struct mount *above = BPF_CORE_READ(mount, mnt_parent);

		if (above == mount) {
			walk->complete = true;
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = above;
		walk->mount_root = BPF_CORE_READ(above, mnt.mnt_root);
		return 0;
	}

	__u32 length = BPF_CORE_READ(dentry, d_name.len) & 255;
	__u32 start = walk->start;

	if (start > PATH_BYTES_MAX || length + 1 > start)
		return 1;
	start -= length + 1;
	barrier_var(start);
	start &= PATH_BYTES_MAX - 1;
	walk->buffer->bytes[start] = '/';
	if (bpf_probe_read_kernel(&walk->buffer->bytes[start + 1], length, BPF_CORE_READ(dentry, d_name.name)))
		return 1;
	walk->start = start;
	walk->dentry = parent;
	walk->complete = is_alone;
	return is_alone;
}

/* Fills the buffer; the path is bytes[start .. PATH_BYTES_MAX). Returns whether the root was reached. */
static __always_inline bool walk_path(struct path_buffer *buffer, const struct path *path, __u32 *start)
{
	struct vfsmount *mount = path->mnt;
	struct path_walk walk = {
		.buffer = buffer,
		.dentry = path->dentry,
		.start = PATH_BYTES_MAX,
	};

	if (!path->dentry || !mount) {
		*start = PATH_BYTES_MAX;
		return false;
	}
	walk.mount = container_of(mount, struct mount, mnt);
	walk.mount_root = BPF_CORE_READ(mount, mnt_root);
	bpf_loop(PATH_COMPONENTS_MAX, step_up, &walk, 0);
	if (walk.complete && walk.start == PATH_BYTES_MAX) {
		/* The root itself. */
		walk.start = PATH_BYTES_MAX - 1;
		buffer->bytes[PATH_BYTES_MAX - 1] = '/';
	}
	*start = walk.start;
	return walk.complete;
}

#endif
