#!/usr/bin/env bash
# `ip rule del` takes the first rule that its words do not rule out, though another one has exactly these words.
#
# Version: Linux 6.18 (run with iproute2 6.1 of Debian 12).
# Behaviour: RTM_DELRULE compares only the attributes that the request has. Suppressors (suppress_prefixlength,
#   suppress_ifgroup) that it does not name are not taken for "none", and `ip` has no word for "none". So a deletion hits
#   a rule of somebody else that asks for more and stands in front, and a rule without suppressors cannot be named while
#   one with them is before it, but by its priority or protocol. ip-rule(8) does not say that what is not given matches
#   anything.
# Seen: of "lookup main suppress_prefixlength 0 suppress_ifgroup 73 proto 73" and the plain "lookup main
#   suppress_prefixlength 0" behind it, `ip rule del lookup main suppress_prefixlength 0` deletes the first. The protocol
#   is compared where it is given: `ip rule del lookup 100 proto 73` passes over the rule of protocol 3 in front.
# Consequence here: who deletes a rule that ours stands before hits ours. The agent takes a pair of which the first alone
#   was deleted for that, and deletes the rule that was meant; it deletes its own front to back (messages/rules.py).
#
# Needs root and iproute2; works in a network namespace of its own. Exits 1 if this changes.
set -euo pipefail
exec unshare --net bash -euo pipefail -c '
ip rule add pref 100 lookup main suppress_prefixlength 0 suppress_ifgroup 73 protocol 73
ip rule add pref 101 lookup main suppress_prefixlength 0
ip rule add pref 200 lookup 100 protocol 3
ip rule add pref 201 lookup 100 protocol 73
echo "before:"; ip rule show
ip rule del lookup main suppress_prefixlength 0
ip rule del lookup 100 protocol 73
echo "after:"; ip rule show
left=$(ip rule show | cut -d: -f1 | tr "\n" " ")
[ "$left" = "0 101 200 32766 32767 " ] || { echo "left are $left: this changed"; exit 1; }
'
