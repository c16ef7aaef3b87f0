#!/bin/sh
# disk.sh COMMAND...: runs it with PHID_TEST_DIR on a file system of its own: an ext4 in a file, which nobody else sees and which is gone with
# it. An ext4 without a journal looks at every inode that was deleted in the last minutes before it gives one out
# (fs/ext4/ialloc.c, recently_deleted): on such a disk one would measure what others have deleted. Without the right to mount: in /tmp.
PATH=$PATH:/usr/sbin:/sbin
image=$(mktemp /tmp/phid-bench-disk.XXXXXX) || exit
if truncate -s 4G "$image" && mkfs.ext4 -q "$image" && unshare -m mount -o loop "$image" /mnt 2>/dev/null; then
  # shellcheck disable=SC2016
  exec unshare -m sh -c 'mount -o loop "$1" /mnt && rm "$1" && shift && PHID_TEST_DIR=/mnt exec "$@"' sh "$image" "$@"
fi
rm -f "$image"
echo "bench/disk.sh: no file system of its own could be mounted; measured in /tmp" >&2
exec "$@"
