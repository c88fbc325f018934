#!/bin/sh
# systemd-networkd removes addresses, routes, rules and nexthops of other programs when it is restarted, from some version
# between 252 and 257 on, though nothing in its files changed. KeepConfiguration=yes keeps them.
#
# Seen on: systemd 252.39-1~deb12u2 of Debian 12 and 257.13-1~deb13u1 of Debian 13, Linux 6.18.44. networkd.conf(5) has
# ManageForeignRoutes=, ManageForeignRoutingPolicyRules= and ManageForeignNextHops= (yes by default) for what is
# configured again; no page says that a restart is that, and there is no such setting for addresses.
#
# Output seen:
#   252 KeepConfiguration=no:  kept: address route rule nexthop
#   257 KeepConfiguration=no:  kept: nothing
#   257 KeepConfiguration=yes: kept: address route rule nexthop
#
# Run as root on Debian (amd64); downloads and unpacks the packages in a temporary folder. Exits 0 while it is so.
set -eu
folder=$(mktemp -d)
trap 'for each in $(ip netns list | grep -o "find-$$-[0-9a-z]*" | sort -u); do ip netns del "$each"; done; rm -rf "$folder"' EXIT
site=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | awk '$2 !~ /security/ { print $1; exit }')
unpack() { # the package systemd of Debian's suite $1, as version $2
    place=$folder/$1
    mkdir -p "$place/lists/partial" "$place/archives/partial" "$place/root"
    touch "$place/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $1 main" >"$place/sources"
    options="-o Dir::State=$place -o Dir::State::status=$place/status -o Dir::Cache::archives=$place/archives
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::Etc::sourcelist=$place/sources
        -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root"
    apt-get -qq -y $options update
    apt-get -qq -y $options install --no-install-recommends --download-only "systemd=$2" >/dev/null
    for package in "$place"/archives/*.deb; do dpkg-deb --extract "$package" "$place/root"; done
}
attempt() { # networkd of the suite $1 with KeepConfiguration=$2: what is left of another program after a restart
    here=find-$$-$1$2
    ip netns add "$here"
    ip -n "$here" link add eth0 type veth peer name far0
    ip -n "$here" link set eth0 up && ip -n "$here" link set far0 up
    mkdir -p "$folder/files"
    printf '[Match]\nName=eth0\n[Network]\nAddress=198.18.9.10/24\nLinkLocalAddressing=no\nKeepConfiguration=%s\n' \
        "$2" >"$folder/files/10-eth0.network"
    # A /sys that cannot be written and a container's mark: it takes links for ready without udev.
    SYSTEMD_LOG_TARGET=console container=lab ip netns exec "$here" unshare --mount sh -ec '
        root=$1 files=$2 here=$3
        mount -t tmpfs tmpfs /run; mount -o remount,bind,ro /sys
        mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/host
        echo systemd-nspawn >/run/host/container-manager
        cp "$files"/* /run/systemd/network
        chown -R systemd-network: /run/systemd/netif
        libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/systemd
        libraries=$libraries:$root/lib/systemd:$root/usr/lib/systemd:$root/lib/x86_64-linux-gnu/systemd
        linker=$(ls "$root"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$root"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 \
            2>/dev/null | head -1)
        daemon=$(ls "$root"/lib/systemd/systemd-networkd "$root"/usr/lib/systemd/systemd-networkd 2>/dev/null | head -1)
        start() {
            "$linker" --library-path "$libraries" "$daemon" & pid=$!
            for _ in $(seq 50); do ip address show dev eth0 | grep -q 198.18.9.10/ && break; sleep 0.2; done
            sleep 2
        }
        start
        ip address add 198.18.9.77/32 dev eth0
        ip nexthop add id 777 dev eth0 protocol 90
        ip route add 198.18.10.0/24 via 198.18.9.1 dev eth0 protocol 90
        ip rule add from 198.18.9.77 lookup 777 protocol 90
        sleep 1
        kill $pid; wait $pid || true
        start
        kill $pid; wait $pid || true
    ' sh "$folder/$1/root" "$folder/files" "$here" >"$folder/$1-$2.log" 2>&1
    kept=''
    ip -n "$here" address show dev eth0 | grep -q 198.18.9.77 && kept="$kept address"
    ip -n "$here" route | grep -q 198.18.10.0/24 && kept="$kept route"
    ip -n "$here" rule | grep -q 198.18.9.77 && kept="$kept rule"
    ip -n "$here" nexthop | grep -q '^id 777 ' && kept="$kept nexthop"
    echo "${kept:- nothing}"
}
unpack bookworm 252.39-1~deb12u2
unpack trixie 257.13-1~deb13u1
old=$(attempt bookworm no) new=$(attempt trixie no) keeping=$(attempt trixie yes)
echo "252 KeepConfiguration=no:  kept:$old"
echo "257 KeepConfiguration=no:  kept:$new"
echo "257 KeepConfiguration=yes: kept:$keeping"
all=' address route rule nexthop'
[ "$old|$new|$keeping" = "$all| nothing|$all" ]
