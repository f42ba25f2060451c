"""Drives two VICI sockets with strongSwan's own client library and prints what both answered.

Arguments: the gateway's socket, the stock charon's, a certificate, a private key (PEM), gatewayctl and
the gateway's control socket. What is
loaded into the gateway is a connection `out` whose peer is that charon.
"""

import calendar
import json
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict

import vici

EVENTS = ["ike-updown", "child-updown", "child-rekey", "log"]


def session(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return vici.Session(sock)


def plain(value):
    """Octets become text, iterators lists."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if value is None or isinstance(value, str):
        return value
    return [plain(inner) for inner in value]


class Listener(threading.Thread):
    """Collects events until it is told to stop."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.session = session(path)
        self.seen = []
        self.done = threading.Event()

    def run(self):
        for name, event in self.session.listen(EVENTS, timeout=0.2):
            if name is not None:
                self.seen.append((plain(name), plain(event)))
            if self.done.is_set():
                return

    def wait(self, name, limit):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if any(seen == name for seen, _ in self.seen):
                return
            time.sleep(0.02)
        raise SystemExit(f"no event {name}; there were {self.seen}")

    def finish(self):
        self.done.set()
        self.join(10)
        return self.seen


def load(s, certificate, key, shared):
    """Credentials; the answers are those of a stock daemon or not."""
    return {
        "load_cert": s.load_cert(OrderedDict(type="X509", flag="CA", data=certificate)),
        "load_key": s.load_key(OrderedDict(type="any", data=key)),
        "load_shared": s.load_shared(shared),
        "get_keys": s.get_keys(),
        "get_shared": s.get_shared(),
    }


def observe(s):
    """Everything that an exporter or a status page asks."""
    return {
        "version": s.version(),
        "stats": s.stats(),
        "get_counters": s.get_counters(),
        "list_conns": s.list_conns(),
        "list_sas": s.list_sas(),
        "list_certs": s.list_certs(),
        "list_authorities": s.list_authorities(),
        "get_pools": s.get_pools(),
        "get_conns": s.get_conns(),
    }


def exported(s):
    """What the Prometheus exporters for strongSwan read: `stats`, `get-pools` and `list-sas` of
    sergeymakinen's ipsec_exporter, `list-sas`, `list-conns` and `list-certs` of torilabs'. Each value
    is converted as their programs convert it, which end a scrape at what they cannot parse."""
    number = lambda section, key: int(section[key].decode(), 10)
    optional = lambda section, key: number(section, key) if key in section else None
    text = lambda section, key: section[key].decode() if key in section else ""
    texts = lambda section, key: [value.decode() for value in section.get(key, [])]
    numbers = lambda section, keys: {key: number(section, key) for key in keys}
    may = lambda section, keys: {key: optional(section, key) for key in keys}
    words = lambda section, keys: {key: text(section, key) for key in keys}

    stats = s.stats()
    since = time.strptime(stats["uptime"]["since"].decode(), "%b %d %H:%M:%S %Y")
    levels = ["critical", "high", "medium", "low"]
    told = {
        "since": calendar.timegm(since),
        "workers": numbers(stats["workers"], ["total", "idle"]),
        "active": numbers(stats["workers"]["active"], levels),
        "queues": numbers(stats["queues"], levels),
        "scheduled": number(stats, "scheduled"),
        "ikesas": numbers(stats["ikesas"], ["total", "half-open"]),
        "pools": [numbers(pool, ["size", "online", "offline"]) for pool in s.get_pools().values()],
    }

    def child_sa(child):
        names = ["uniqueid", "reqid", "bytes-in", "bytes-out", "packets-in", "packets-out", "install-time", "life-time"]
        optionals = ["encr-keysize", "integ-keysize", "use-in", "use-out", "rekey-time"]
        labels = ["name", "state", "mode", "protocol", "encap", "encr-alg",
                  "integ-alg", "prf-alg", "dh-group", "esn"]
        lists = {key: texts(child, key) for key in ["local-ts", "remote-ts"]}
        return {**numbers(child, names), **may(child, optionals), **words(child, labels), **lists}

    def ike_sa(name, sa):
        names = ["uniqueid", "version", "local-port", "remote-port", "established"]
        optionals = ["encr-keysize", "integ-keysize", "rekey-time", "reauth-time"]
        labels = ["state", "local-host", "local-id", "remote-host", "remote-id", "remote-xauth-id",
                  "remote-eap-id", "initiator", "initiator-spi", "responder-spi", "nat-local",
                  "nat-remote", "nat-fake", "nat-any", "encr-alg", "integ-alg", "prf-alg", "dh-group"]
        lists = {key: texts(sa, key) for key in ["local-vips", "remote-vips"]}
        children = [child_sa(child) for child in sa["child-sas"].values()]
        return {"name": name, **numbers(sa, names), **may(sa, optionals), **words(sa, labels),
                **lists, "child-sas": children}

    def conn(name, one):
        child_keys = ["rekey_time", "rekey_bytes", "rekey_packets"]
        children = {
            name: {**numbers(child, child_keys), "mode": text(child, "mode"),
                   "local-ts": texts(child, "local-ts"), "remote-ts": texts(child, "remote-ts")}
            for name, child in one["children"].items()
        }
        return {"name": name, **numbers(one, ["reauth_time", "rekey_time"]),
                "version": text(one, "version"), "local_addrs": texts(one, "local_addrs"),
                "remote_addrs": texts(one, "remote_addrs"), "children": children}

    each = lambda messages, take: [take(*item) for message in messages for item in message.items()]
    told["ike_sas"] = each(s.list_sas(), ike_sa)
    told["conns"] = each(s.list_conns(), conn)
    certificates = [dict(one) for one in s.list_certs({"type": "X509"})]
    told["certs"] = [[text(one, "type"), one["data"][:1].hex()] for one in certificates]
    return told


def refused(call):
    try:
        call()
    except vici.exception.CommandException as error:
        return str(error)
    raise SystemExit("not refused")


def gatewayctl(program, control, page):
    command = [program, "--socket", control, "--json", page]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def main(ours_path, stock_path, certificate, key, program, control):
    ours, stock = session(ours_path), session(stock_path)
    certificate, key = open(certificate, "rb").read(), open(key, "rb").read()
    owners = ["loaded.example.org", "site-1"]
    secret = b"known to swanctl alone"
    shared = OrderedDict(id="psk-1", type="IKE", data=secret, owners=owners)
    other = OrderedDict(id="psk-1", type="IKE", data=b"of nobody", owners=["nobody"])
    loaded = {
        "ours": load(ours, certificate, key, shared),
        "stock": load(stock, certificate, key, other),
    }
    child = OrderedDict(
        local_ts=["10.1.0.0/16"], remote_ts=["10.2.1.0/24"], esp_proposals=["aes128gcm16"]
    )
    out = OrderedDict(
        version="2",
        local_addrs=["203.0.113.10"],
        remote_addrs=["198.51.100.10"],
        proposals=["aes128gcm16-prfsha256-x25519"],
        encap="yes",
        local=OrderedDict(auth="psk", id="loaded.example.org"),
        remote=OrderedDict(auth="psk", id="site-1"),
        children=OrderedDict(net=child),
    )
    ours.load_conn(OrderedDict(out=out))
    listeners = {"ours": Listener(ours_path), "stock": Listener(stock_path)}
    for listener in listeners.values():
        listener.start()
    time.sleep(0.3)  # Registering has no answer that one could wait for.
    order = OrderedDict(child="net", ike="out", timeout="30000")
    log = plain(ours.initiate(order))
    for listener in listeners.values():
        listener.wait("child-updown", 10)
    answers = {"ours": plain(observe(ours)), "stock": plain(observe(stock))}
    scraped = exported(ours)
    pages = {page: gatewayctl(program, control, page) for page in ["status", "sas", "connections"]}
    reset = [ours.reset_counters(), ours.get_counters()][1]
    one = plain(ours.list_sas({"ike": "out"}))
    none = plain(ours.list_sas({"ike": "nobody"}))
    wrong = {
        "ours": refused(lambda: list(ours.terminate({"ike": "nobody"}))),
        "stock": refused(lambda: list(stock.terminate({"ike": "nobody"}))),
    }
    ended = plain(ours.terminate({"ike": "out"}))
    unloaded = plain([ours.unload_conn({"name": "out"}), ours.unload_shared({"id": "psk-1"})])
    json.dump(
        {
            "loaded": plain(loaded),
            "answers": answers,
            "exported": scraped,
            "gatewayctl": pages,
            "reset": plain(reset),
            "initiate": log,
            "terminate": ended,
            "chosen": [len(one), len(none)],
            "refused": wrong,
            "unloaded": unloaded,
            "left": plain([ours.get_conns(), ours.get_shared()]),
            "events": {name: one.finish() for name, one in listeners.items()},
        },
        sys.stdout,
    )


main(*sys.argv[1:])
