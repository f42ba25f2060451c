#!/bin/sh
# A Linux router before the members, without a routing protocol: equal-cost routes to the VIP by
# the members' public addresses, chosen by addresses and ports.
set -eu
sysctl -w net.ipv4.fib_multipath_hash_policy=1
sysctl -w net.ipv6.fib_multipath_hash_policy=1
ip route replace 203.0.113.10/32 \
    nexthop via 192.0.2.6 nexthop via 192.0.2.10 nexthop via 192.0.2.14
ip -6 route replace 2001:db8:1::10/128 \
    nexthop via 2001:db8:2:1::2 nexthop via 2001:db8:2:2::2 nexthop via 2001:db8:2:3::2
