# disk.sh: makes the guests' root disk, kernels and initial RAM disks out of root.tar, in this directory.
set -eu
mkdir root
tar -x --numeric-owner --exclude='./dev/*' -C root -f root.tar
mv root/boot/vmlinuz-* root/boot/initrd-* .
chmod 644 vmlinuz-* initrd-*
mkfs.ext4 -q -d root -O ^has_journal root.img 8G
rm -r root root.tar setup.sh init.sh disk.sh container.cil
