#!/bin/sh
# zebra takes a static route out of the kernel whose gateway is in the prefix of an address with `noprefixroute`, from some
# version between 8.4 and 10.3 on. An address that moves to another interface with that flag takes zebra's routes along.
#
# Seen on: FRR 8.4.4-1.1~deb12u2 of Debian 12 and 10.3-3+deb13u1 of Debian 13, Linux 6.18.44. 10.7.1 does the same.
# zebra counts the prefix of such an address among its connected ones no more; before, it did (and 8.4 mistakes the
# interface, frr-zebra-forgets-the-wrong-interface-of-a-prefix-on-two.sh). It does not matter whether
# the kernel has a route to that prefix: one in another table, where it is used all the same, zebra does not look at.
#
# Output seen:
#   8.4  moved with noprefixroute: 198.51.100.0/24 by nic0
#   10.3 moved with noprefixroute: no route
#   10.3 moved without:            198.51.100.0/24 by nic1
#
# Consequence here: an address of the host is laid on another member as it is at home, with its connected route.
#
# Run as root on Debian (amd64); downloads and unpacks the packages in a temporary folder. Exits 0 while it is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
site=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | awk '$2 !~ /security/ { print $1; exit }')
unpack() { # the package frr of Debian's suite $1, as version $2
    place=$folder/$1
    mkdir -p "$place/lists/partial" "$place/archives/partial" "$place/root"
    touch "$place/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $1 main" >"$place/sources"
    options="-o Dir::State=$place -o Dir::State::status=$place/status -o Dir::Cache::archives=$place/archives
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::Etc::sourcelist=$place/sources
        -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root"
    apt-get -qq -y $options update
    apt-get -qq -y $options install --no-install-recommends --download-only "frr=$2" >/dev/null
    for package in "$place"/archives/*.deb; do dpkg-deb --extract "$package" "$place/root"; done
}
attempt() { # zebra of the suite $1, and an address that moves with the flags $2: where its route leads in the end
    unshare --net --mount sh -euc '
        root=$1 flags=$2
        cp -a /etc "$root/../etc-$$" && mount --bind "$root/../etc-$$" /etc && rm -rf /etc/frr && mkdir /etc/frr
        mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /usr/share && mkdir /run/frr /usr/share/yang
        mount --bind "$root/usr/share/yang" /usr/share/yang
        for group in frr frrvty; do getent group $group >/dev/null || echo "$group:x:1$$:" >>/etc/group; done
        getent passwd frr >/dev/null || echo "frr:x:1$$:1$$::/run:/bin/false" >>/etc/passwd
        ip link set lo up
        for nic in nic0 nic1; do
            ip link add $nic type veth peer name far-$nic; ip link set $nic up; ip link set far-$nic up
        done
        ip address add 192.0.2.10/24 dev nic0
        : >/etc/frr/zebra.conf; echo "ip route 198.51.100.0/24 192.0.2.1" >/etc/frr/staticd.conf
        chown -R frr:frr /etc/frr /run/frr
        libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu/frr
        linker=$(ls "$root"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$root"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 \
            2>/dev/null | head -1)
        running=
        for daemon in zebra mgmtd staticd; do
            [ -e "$root/usr/lib/frr/$daemon" ] || continue
            "$linker" --library-path "$libraries" "$root/usr/lib/frr/$daemon" -P 0 --log stdout >/run/$daemon.log 2>&1 &
            running="$running $!"
            sleep 1
        done
        for _ in $(seq 50); do ip route | grep -q "198.51.100.0/24 .* dev nic0 proto static" && break; sleep 0.2; done
        ip route | grep -q "198.51.100.0/24 .* dev nic0 proto static" || { cat /run/*.log >&2; exit 2; }
        ip address add 192.0.2.10/24 dev nic1 $flags
        ip address del 192.0.2.10/24 dev nic0
        sleep 3
        ip route | sed -n "s/^\(198.51.100.0.24\) .* dev \(nic[01]\) .*/\1 by \2/p" | grep . || echo "no route"
        kill $running
        wait
    ' sh "$folder/$1/root" "$2"
}
unpack bookworm 8.4.4-1.1~deb12u2
unpack trixie 10.3-3+deb13u1
old=$(attempt bookworm noprefixroute) new=$(attempt trixie noprefixroute) plain=$(attempt trixie '')
echo "8.4  moved with noprefixroute: $old"
echo "10.3 moved with noprefixroute: $new"
echo "10.3 moved without:            $plain"
[ "$old|$new|$plain" = '198.51.100.0/24 by nic0|no route|198.51.100.0/24 by nic1' ]
