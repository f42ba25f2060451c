#!/bin/sh
# For whatever can run a check but cannot import a routing table: keepalived's vrrp_script, a load
# balancer's agent check, exabgp, a cron job. Exit code 0 while upstream may send to this member.
#
# keepalived:  vrrp_script gateway { script "/usr/share/gateway/health-check.sh" interval 1 }
# exabgp:      process health { run healthcheck.py --cmd /usr/share/gateway/health-check.sh … }
exec /usr/sbin/gatewayctl health >/dev/null
