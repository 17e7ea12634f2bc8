# Becomes a systemd in namespaces of its own. Called as: boot.sh ROOT GROUP, in a new mount namespace.
set -e
root=$1
# Mounts stay here: none of them is seen, or left, outside.
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t cgroup2 cgroup2 "$root/sys"
mkdir "$root/sys/$2"
echo $$ >"$root/sys/$2/cgroup.procs"
umount "$root/sys"
exec unshare --pid --fork --kill-child --net --uts --ipc --cgroup sh -ec '
cd "$1"
mount -t proc proc proc
# What its systemd would set there holds for the whole machine.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
umount -l /mnt
# Among ourselves, as systemd has it where it boots a machine: credentials come to a service that way.
mount --make-rshared /
exec env -i container=observer-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --show-status=0 --unit=basic.target </dev/null
' sh "$root"
