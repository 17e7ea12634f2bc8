#!/bin/busybox sh
# The first process of the test machine: starts targets, runs observer on them, writes each output between
# two marks to the console, and switches the machine off.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t securityfs security /sys/kernel/security
ip link set lo up
echo 1 >/proc/sys/kernel/printk

section() {
    name=$1
    shift
    printf '\n@@begin %s\n' "$name"
    "$@" 2>&1
    printf '\n@@end %s %d\n' "$name" $?
}

mkfifo /tmp/commands
sleep 1000 >/tmp/commands &
sleepers 20 </tmp/commands >/dev/null &
sleepers=$!
shapes /tmp/dump 2 >/dev/null &
shapes=$!
(while :; do echo "map 1"; sleep 0.5; done) | grower >/dev/null &
allocator 2 1000 </tmp/commands >/dev/null &
allocator=$!
while [ ! -f /tmp/dump ]; do sleep 1; done
grower=$(pidof grower)

section uname uname -r
section doctor observer doctor
section threads observer snapshot "$sleepers" --format json
section threads-proc observer snapshot "$sleepers" --no-ebpf --format json
section goroutines observer snapshot "$shapes" --format json
section attach observer attach "$grower" --duration 8s --format json
section allocations observer attach "$allocator" --allocations --duration 12s --format json
kill "$allocator"
# Without tracefs and with it: --exact has hooks for both.
section exact observer attach "$grower" --exact --duration 5s --format json
mount -t tracefs tracefs /sys/kernel/tracing
section exact-tracefs observer attach "$grower" --exact --duration 5s --format json
# Reading kernel memory is forbidden from here on, so this comes last.
echo confidentiality >/sys/kernel/security/lockdown
section lockdown observer doctor
section lockdown-snapshot observer snapshot "$sleepers" --format json
echo "@@done"
poweroff -f
