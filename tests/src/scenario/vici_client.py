"""Drives two VICI sockets with strongSwan's own client library and prints what both answered.

Arguments: the gateway's socket, the stock charon's, a certificate and a private key (PEM). What is
loaded into the gateway is a connection `out` whose peer is that charon.
"""

import json
import socket
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


def refused(call):
    try:
        call()
    except vici.exception.CommandException as error:
        return str(error)
    raise SystemExit("not refused")


def main(ours_path, stock_path, certificate, key):
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
