#!/bin/bash
# run.sh: runs in the guest, as process 1 or as a service of systemd. It runs the command, and leaves
# its exit status and what it has written to /vm/out on the third disk, as a tar.
export PATH=/vm:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
if [ $$ = 1 ]; then
	mount -t proc -o nosuid,nodev,noexec proc /proc
	mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
	mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
	mount -t securityfs securityfs /sys/kernel/security
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm
	mount -t mqueue mqueue /dev/mqueue
	mount -t tmpfs -o mode=755 tmpfs /run
	mount --make-rshared /
	ln -sfn /proc/self/fd /dev/fd
	ip link set lo up
	sed 's/[a-z_]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
	install -d -o tester -g tester -m 700 /run/user/1000
else
	# The service is started long before these, and a session of tester needs them.
	systemctl start basic.target dbus.service systemd-logind.service user@1000.service
fi
stty -F /dev/ttyS1 -opost
exec </dev/null > >(exec cat >/dev/ttyS1) 2>&1 # through a pipe: programs do other things on a terminal
writer=$!
modprobe -a overlay veth bridge tun fuse loop
chmod 666 /dev/net/tun /dev/fuse # as udev would
if grep -q selinuxfs /proc/filesystems; then
	mount -t selinuxfs selinuxfs /sys/fs/selinux
	dd if=/etc/container-policy of=/sys/fs/selinux/load bs=16M status=none # in one piece
	chcon system_u:object_r:null_device_t:s0 /dev/null                     # as udev would
	echo 1 >/sys/fs/selinux/enforce                                        # from now on no file may become a module
fi
install -d -m 1777 /vm/out
chmod 755 /vm
cd /vm
setsid --wait bash /vm/command # process 1 and its children are in session 0, which CRIU cannot dump
echo $? >/vm/status
tar -cf /dev/vdc -C /vm status out
sync
exec >/dev/null 2>&1
timeout 5 tail --pid=$writer -f /dev/null # what the command left in the background may have the pipe
echo o >/proc/sysrq-trigger
sleep 10
