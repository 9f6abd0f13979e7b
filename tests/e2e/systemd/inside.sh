#!/bin/sh
# Run in new mount, pid, net, ipc, uts and cgroup namespaces: make a machine of them, and become its systemd.
# $1: an empty directory; $2: hybrid (cgroup version 1, with version 2 beside it) or unified (version 2 alone);
# the rest: directories of other file systems that are to be seen there, too
set -e
machine=$1 mode=$2
shift 2
mount -t tmpfs tmpfs "$machine"
mkdir "$machine/upper" "$machine/work" "$machine/root"
mount -t overlay -o "lowerdir=/,upperdir=$machine/upper,workdir=$machine/work" overlay "$machine/root"
cd "$machine/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    touch dev/$node
    mount --bind /dev/$node dev/$node
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for directory; do
    mkdir -p ".$directory"
    mount --rbind "$directory" ".$directory"
done

if [ "$mode" = unified ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    cd sys/fs/cgroup
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids; do
        mkdir $controller
        mount -t cgroup -o $controller cgroup $controller
    done
    mkdir systemd unified
    mount -t cgroup -o none,name=systemd cgroup systemd
    mount -t cgroup2 cgroup2 unified
    cd ../../..
fi

# Only what the units under test need: none of the machine's own services.
echo 0123456789abcdef0123456789abcdef >etc/machine-id
: >etc/fstab
rm -rf etc/systemd/system
mkdir -p etc/systemd/system
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service; do
    ln -s /dev/null etc/systemd/system/$unit
done
hostname machine
mkdir -p old
mount --make-rprivate /
pivot_root . old
umount -l /old
exec env -i container=shimd-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=0
