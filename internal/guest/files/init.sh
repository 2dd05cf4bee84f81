#!/bin/busybox sh
# The first program in a guest. It goes from the initial RAM disk to the root disk, and unpacks the
# second disk, a tar, there.
busybox mount -t devtmpfs dev /dev
if [ "$guest_probe" ]; then # it runs: that is all they want to know
	echo works >/dev/ttyS1
	busybox poweroff -f
fi
for module in /*.ko; do busybox insmod "$module"; done
while [ ! -b /dev/vdc ]; do busybox usleep 10000; done
busybox mount -t ext4 /dev/vda /newroot
busybox mount --move /dev /newroot/dev
busybox tar -xof /newroot/dev/vdb -C /newroot/vm
exec busybox switch_root /newroot "${guest_init:-/sbin/init}"
