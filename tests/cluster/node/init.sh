#!/bin/bash
# PID 1 of a test node, in network, mount and pid namespaces of its own: containerd and kubelet on their usual paths
# in /var and /run, which are private to the node, as are therefore the hostPath volumes of its pods.
# Usage: init.sh NAME ADDRESS STATE CGROUP TOOLS
set -eu
name=$1 address=$2 state=$3 cgroup=$4 tools=$5

mount --make-rprivate /
mount -t proc proc /proc
mkdir -p "$state"/{var/lib,var/log,var/tmp}
# Bound below /run first, since what is mounted next may hide where they are.
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/node /mnt/node/{tools,state,cgroup}
mount --bind "$state" /mnt/node/state
mount --bind "$tools" /mnt/node/tools
# A new sysfs shows this network namespace's interfaces; the cgroup mounts move over to it.
mount --rbind /sys/fs/cgroup /mnt/node/cgroup
mount -t sysfs sysfs /sys
mount --rbind /mnt/node/cgroup /sys/fs/cgroup
umount -l /mnt/node/cgroup
mount --rbind /mnt /run
umount -l /mnt
mount --bind /run/node/state/var /var
hostname "$name"
PATH=/run/node/tools:$PATH

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2: one hierarchy, controllers handed down
    read -r -a controllers </sys/fs/cgroup/cgroup.controllers
    echo "${controllers[@]/#/+}" >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p "/sys/fs/cgroup/$cgroup"
else
    for c in /sys/fs/cgroup/*/; do
        [ -e "$c/tasks" ] || continue # the unified hierarchy beside version 1: no controllers there
        mkdir -p "$c/$cgroup"
        [ ! -e "$c/cpuset.cpus" ] || for f in cpuset.cpus cpuset.mems; do cat "$c/$f" >"$c/$cgroup/$f"; done
    done
fi

# What systemd does on a real node; this shell also reaps the orphans (containerd's shims).
keep() { # COMMAND...
    while :; do
        "$@" >>"/run/node/state/$1.log" 2>&1 || echo "$1 ended with $?"
        sleep 1
    done
}

export SSL_CERT_FILE=/run/node/state/ca.crt # the cluster's own registries are signed by its authority
keep containerd --config /run/node/state/containerd.toml &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
ctr -n k8s.io images import /run/node/tools/pause.tar
keep kubelet --config=/run/node/state/kubelet.yaml --kubeconfig=/run/node/state/kubeconfig \
    --hostname-override="$name" --node-ip="$address" --v=2
