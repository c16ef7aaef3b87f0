#!/bin/busybox sh
# PID 1 of Linux in a cell (cell.py): says what the device tree made it see, and turns the machine off.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
echo "machine $(uname -m)"
echo "cpus $(cat /sys/devices/system/cpu/online)"
echo "memory $(grep -m 1 'System RAM' /proc/iomem)"
echo "cmdline $(cat /proc/cmdline)"
echo "model $(cat /proc/device-tree/model)"
poweroff -f
