# setup.sh SERIES=PACKAGE...: runs in the root directory of the guests, when its packages are there.
# It adds the user tester, and each series of kernels: modules, vmlinuz-SERIES, initrd-SERIES.
set -eu
useradd -m -s /bin/bash -u 1000 tester # gets subordinate ids, too
usermod --add-subuids 200000-265535 --add-subgids 200000-265535 root
install -d /var/lib/systemd/linger
touch /var/lib/systemd/linger/tester
: >/etc/fstab
for unit in apparmor.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target serial-getty@ttyS0.service \
	systemd-networkd.service systemd-timesyncd.service; do
	ln -sf /dev/null "/etc/systemd/system/$unit"
done

# SELinux's policy: Debian's without the modules for services, which would take a minute to make, and container.cil.
cd /tmp
apt-get -q -o APT::Sandbox::User=root download selinux-policy-default
mkdir policy
dpkg-deb --fsys-tarfile selinux-policy-default_*.deb | tar -x -C policy
for module in base unconfined; do
	bzip2 -dc "policy/usr/share/selinux/default/$module.pp.bz2" >"$module.pp"
	/usr/libexec/selinux/hll/pp "$module.pp" | sed '/^(selinuxuser sddm /d' >"$module.cil" # that user is of a module
done
secilc -M true -c 33 -o /etc/container-policy -f /dev/null base.cil unconfined.cil /vm/container.cil
rm -r policy selinux-policy-default_*.deb base.* unconfined.* /vm/container.cil

cd /boot
for kernel; do
	series=${kernel%%=*}
	# Unpacked only: its scripts would make Debian's initial RAM disk, which is slower than this one.
	image=$(apt-cache depends "${kernel#*=}" | awk '$1 == "Depends:" { print $2; exit }')
	apt-get -q -o APT::Sandbox::User=root download "$image"
	dpkg-deb --fsys-tarfile "$image"_*.deb | tar -x --keep-directory-symlink -C /
	rm "$image"_*.deb
	version=${image#linux-image-}
	version=${version%-unsigned}
	depmod "$version"
	mv "vmlinuz-$version" "vmlinuz-$series"

	# The initial RAM disk: busybox, and the modules that reach the disk, numbered as they depend
	# on each other.
	mkdir -p "initrd/bin" initrd/dev initrd/newroot
	cp /bin/busybox initrd/bin/
	install /vm/init.sh initrd/init
	number=10
	for module in virtio_pci virtio_blk; do
		modprobe -S "$version" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
		case $file in
		*.xz) busybox xz -dc "$file" ;;
		*) cat "$file" ;;
		esac >"initrd/$number.ko"
		number=$((number + 1))
	done
	(cd initrd && find . | busybox cpio -o -H newc) >"initrd-$series"
	rm -r initrd
done
rm /vm/setup.sh /vm/init.sh
