#!/bin/sh
# Finding: in a container of systemd-nspawn, a service with ProtectKernelTunables= or ProtectControlGroups= reads another
# boot id than everything else in the container: that of the container's host.
#
# Seen with: systemd 252 (Debian 12, 252.39-1~deb12u2) on Linux 6.18, in a root made by debootstrap.
#   the container's boot id                       A, random
#   a service with ProtectHostname=yes            A, random
#   a service with ProtectKernelTunables=yes      B, the host's
#   a service with ProtectControlGroups=yes       B, the host's
# Why: systemd-nspawn mounts a file over /proc/sys/kernel/random/boot_id, and systemd gives a service with one of these
# options a /proc of its own, in which that mount is not.
# What it means: a service that compares boot ids with a program outside of it (what it left in a file before a reboot,
# say) takes every other program for one of another boot, and does not see that the container was started anew.
#
# Needs root on Debian, debootstrap and systemd-container. Ends with 1 once the service reads the container's boot id.
set -eu

work=$(mktemp -d)
nspawn=
finish() {
    [ -z "$nspawn" ] || { kill "$nspawn" 2>/dev/null && wait "$nspawn"; } || true
    rm -rf "$work"
}
trap finish EXIT

debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$work/root" >/dev/null
systemd-nspawn --quiet --boot --directory="$work/root" --private-network --register=no --keep-unit --link-journal=no \
    --console=pipe --machine=finding </dev/null >/dev/null 2>&1 &
nspawn=$!

inside() {
    nsenter --target "$(cut -d' ' -f1 "/proc/$nspawn/task/$nspawn/children")" --all "$@"
}
for _ in $(seq 300); do
    case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) break ;; esac
    sleep 0.2
done

file=/proc/sys/kernel/random/boot_id
container=$(inside cat $file)
echo "the container's boot id                       $container"
status=0
for option in ProtectHostname ProtectKernelTunables ProtectControlGroups; do
    service=$(inside systemd-run --quiet --pipe --wait --property=$option=yes cat $file)
    printf '%-45s %s\n' "a service with $option=yes" "$service"
    case $option in
    ProtectHostname) [ "$service" = "$container" ] || status=1 ;;
    *) [ "$service" != "$container" ] && [ "$service" = "$(cat $file)" ] || status=1 ;;
    esac
done
exit $status
