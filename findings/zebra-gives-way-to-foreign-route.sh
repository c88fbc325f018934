#!/bin/sh
# FRR's zebra takes its own route out of the kernel as soon as another program's route of the same prefix is there,
# whatever the metrics, and lays it again when that one goes.
#
# Seen on: zebra and staticd 8.4.4 of Debian 12 (frr 8.4.4-1.1~deb12u2). A kernel route has administrative distance 0
# and is preferred; FRRouting/frr issues 443, 5903 and 21032 have it as meant. A program that lays a second route for each
# that it finds, and takes it away with its original, fights with zebra without end: here for 5 s.
#
# Output seen:
#   alone:                          198.18.10.0/24 nhid 6 via 198.18.9.1 dev eth0 proto static metric 20
#   with another of metric 10:      198.18.10.0/24 via 198.18.9.1 dev eth0 proto 90 metric 10
#   when that one is gone:          198.18.10.0/24 nhid 6 via 198.18.9.1 dev eth0 proto static metric 20
#   route messages in 5 s beside a program that follows zebra's route: 1446
#
# Run as root on Debian 12 (amd64); downloads and unpacks the package in a temporary folder. Exits 0 while it is so.
set -eu
version=8.4.4-1.1~deb12u2
folder=$(mktemp -d) here=find-$$
follower='' zebra='' staticd=''
cleanup() {
    for each in $follower $staticd $zebra; do kill "$each" 2>/dev/null || true; done
    sleep 0.5
    ip netns del $here 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/root" "$folder/run"
touch "$folder/status"
# The sites are those of this machine's own packages.
apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' | sort -u | while read -r site suite; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $suite main"
done >"$folder/sources"
apt() {
    apt-get -qq -y -o Dir::State="$folder" -o Dir::State::status="$folder/status" -o Dir::Cache::archives="$folder/archives" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Dir::Etc::sourcelist="$folder/sources" \
        -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root "$@"
}
apt update
apt install --no-install-recommends --download-only "frr=$version" >/dev/null
for package in "$folder"/archives/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
libraries=$folder/root/usr/lib/x86_64-linux-gnu:$folder/root/lib/x86_64-linux-gnu:$folder/root/usr/lib/x86_64-linux-gnu/frr
linker=$(ls "$folder"/root/lib*/ld-linux-x86-64.so.2 "$folder"/root/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 2>/dev/null | head -1)

ip netns add $here
ip -n $here link add eth0 type veth peer name far0
ip -n $here link set eth0 up && ip -n $here link set far0 up
ip -n $here address add 198.18.9.10/24 dev eth0
sleep 1
printf 'ip route 198.18.10.0/24 198.18.9.1\n' >"$folder/staticd.conf"
: >"$folder/zebra.conf"
daemon() { # $1 in the namespace, as root and with files of its own
    name=$1; shift
    # A mount of its own stands in for /etc/passwd, /etc/group and /var/run/frr: the package's user is not made.
    ip netns exec $here unshare --mount sh -c '
        name=$1 folder=$2 libraries=$3 linker=$4; shift 4
        grep -v ^frr /etc/passwd >"$folder/passwd-$name"; echo frr:x:0:0::/:/bin/false >>"$folder/passwd-$name"
        grep -v ^frr /etc/group >"$folder/group-$name"; printf "frr:x:0:\nfrrvty:x:0:root\n" >>"$folder/group-$name"
        mount --bind "$folder/passwd-$name" /etc/passwd && mount --bind "$folder/group-$name" /etc/group
        mkdir -p /run/frr && mount --bind "$folder/run" /run/frr
        exec "$linker" --library-path "$libraries" "$folder/root/usr/lib/frr/$name" "$@"
    ' sh "$name" "$folder" "$libraries" "$linker" -u root -g root -f "$folder/$name.conf" -i "$folder/run/$name.pid" \
        -z "$folder/run/zserv.api" --vty_socket "$folder/run" -P 0 "$@" >"$folder/$name.log" 2>&1 &
}
daemon zebra; zebra=$!
sleep 2
daemon staticd; staticd=$!
routes() { ip -n $here route show 198.18.10.0/24; }
for _ in $(seq 50); do [ -n "$(routes)" ] && break; sleep 0.2; done
alone=$(routes)
ip -n $here route add 198.18.10.0/24 via 198.18.9.1 proto 90 metric 10; sleep 1
beside=$(routes)
ip -n $here route del 198.18.10.0/24 proto 90 metric 10; sleep 1
after=$(routes)
echo "alone:                          $alone"
echo "with another of metric 10:      $beside"
echo "when that one is gone:          $after"

# A program that lays a better route while zebra's is there, and takes it away when it is not.
ip -n $here monitor route >"$folder/messages" &
monitor=$!
cat >"$folder/follow.sh" <<'F'
while :; do
    case $(ip -n "$1" route show 198.18.10.0/24) in
    *static*) ip -n "$1" route add 198.18.10.0/24 via 198.18.9.1 proto 90 metric 10 2>/dev/null ;;
    *) ip -n "$1" route del 198.18.10.0/24 proto 90 2>/dev/null ;;
    esac
done
F
sh "$folder/follow.sh" $here &
follower=$!
sleep 5
kill $follower $monitor; follower=''
count=$(grep -c 198.18.10.0/24 "$folder/messages")
echo "route messages in 5 s beside a program that follows zebra's route: $count"
case $alone in *'proto static'*) ;; *) exit 1 ;; esac
case $beside in *'proto static'*) exit 1 ;; *'proto 90'*) ;; *) exit 1 ;; esac
case $after in *'proto static'*) ;; *) exit 1 ;; esac
[ "$count" -gt 50 ]
