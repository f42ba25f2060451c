#!/bin/sh
# Announces a member's VIPs by FRR while the member takes traffic, which is while the agent keeps them
# as routes in table 252 (`[health] route_table` in gateway.toml).
#
#     frr-announce.sh AS VIP/32… VIP/128…
#
# FRR does not do this by itself: the VIP stands on the loopback device, and zebra prefers such a
# connected route to every other of the same prefix, so that none of table 252 would be redistributed.
# frr.conf has no `network` for the VIPs: when FRR starts anew they are not announced until this says so.
set -eu
as=$1
shift
table=252
told=

# 4 or 6.
family() {
    case $1 in *:*) echo 6 ;; *) echo 4 ;; esac
}

# Tells bgpd what to do (`network`, `no network`) with a prefix.
tell() {
    vtysh -c "configure terminal" -c "router bgp $as" \
        -c "address-family ipv$(family "$2") unicast" -c "$1 $2"
}

# The state of all VIPs, if it is news.
apply() {
    state=
    for vip; do
        there=$(ip "-$(family "$vip")" route show table "$table" exact "$vip" 2>/dev/null) || there=
        state="$state $vip=${there:+up}"
    done
    # A bgpd that has started anew knows of none.
    news="$(cat /run/frr/bgpd.pid 2>/dev/null || true) $state"
    [ "$news" != "$told" ] || return 0
    for one in $state; do
        case $one in
        *=up) tell network "${one%=up}" || exit 1 ;;
        # It complains of what it does not have.
        *) tell "no network" "${one%=}" >/dev/null || true ;;
        esac
    done
    told=$news
}

# One process that asks, rather than one that is told and another that listens for it: nothing stays
# behind when it is killed.
while :; do
    apply "$@"
    sleep 1
done
