use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use gateway_vici::{Packet, Section, packet_length};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Baseline, Happened, Hub, Links, client};
use crate::api;
use crate::api::model::{Refusal, RefusalKind, Reply, Request};

/// A client of a server whose agent has one tunnel that goes when it is terminated.
struct Client {
    stream: UnixStream,
    hub: Hub,
}

fn tunnel() -> serde_json::Value {
    json!({
        "connection": "site", "local_spi": "00000001deadbeef", "remote_spi": "00000002cafecafe",
        "slot": 7, "owner": 1, "local": "203.0.113.10:4500", "remote": "198.51.100.7:4500",
        "local_id": "gw", "remote_id": "peer", "proposal": "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519/KE1_ML_KEM_768",
        "established_seconds": 61.9, "nat": true, "initiator": false,
        "children": [{
            "name": "net", "spi_in": "0a0b0c0d", "spi_out": "01020304", "proposal": "AES_CBC-256/HMAC_SHA2_256_128/EXT_SEQ",
            "local_ts": ["10.1.0.0/16"], "remote_ts": ["10.2.0.0/16"],
            "mark_in": "0x0000002a/0xffffffff", "mark_out": "0x0000000b/0x000000ff", "encap": true, "reqid": 5,
            "installed_seconds": 60.0, "life_seconds": 3900.0,
            "packets_in": 1, "bytes_in": 84, "packets_out": 2, "bytes_out": 168
        }]
    })
}

fn status() -> serde_json::Value {
    json!({
        "member": 1, "name": "a", "cluster": "c", "mode": "ha", "version": "1", "uptime_seconds": 7200.0,
        "state": "ACTIVE", "ike_forwarding": true, "steering": {"mode": "none", "interfaces": []},
        "kernel_backend": "recording", "esp_algorithms_ready": true, "slots_owned": 256, "half_open": 1, "ike_sas": 2, "child_sas": 2,
        "table": {"entries": 0, "max_entries": 256}, "peers_connected": 0, "epoch": 1
    })
}

async fn agent(mut calls: mpsc::Receiver<api::Call>, hub: Hub) {
    let (mut up, mut answered) = (true, 0);
    while let Some(call) = calls.recv().await {
        let reply = match call.request {
            Request::Status => Reply::Ok(status()),
            Request::SaPage(_) => {
                let sas = if up { vec![tunnel()] } else { Vec::new() };
                Reply::Ok(json!({"ike_sas": sas, "next": null}))
            }
            Request::Sa { local_spi } if up => {
                assert_eq!(local_spi, "00000001deadbeef");
                Reply::Ok(tunnel())
            }
            Request::Sa { .. } => Reply::Refused(Refusal::new(RefusalKind::NotFound, "gone")),
            Request::Terminate(target) => {
                assert_eq!(target.spi.as_deref(), Some("00000001deadbeef"));
                up = false;
                Reply::Ok(json!({"here": 1, "passed_on": [], "waiting": []}))
            }
            Request::Initiate(_) => {
                hub.tell(Happened {
                    name: "",
                    connection: Some("site".into()),
                    reason: Some("AUTHENTICATION_FAILED".into()),
                    message: Section::new(),
                });
                Reply::Ok(json!({"here": 1, "passed_on": [], "waiting": []}))
            }
            Request::Connections => Reply::Ok(json!({"connections": [{
                "name": "site", "loaded": true, "local_addrs": [], "remote_addrs": ["198.51.100.7"],
                "local_auth": "psk", "remote_auth": "psk", "local_id": "gw", "remote_id": "peer",
                "proposals": [], "rekey_time": 14400, "reauth_time": 0, "dpd_delay": 0, "unique": "no",
                "slot": 7, "owner": 1, "ike_sas": 0, "children": [{
                    "name": "other", "local_ts": [], "remote_ts": [], "esp_proposals": [],
                    "rekey_time": 0, "rekey_bytes": 0, "rekey_packets": 0, "start_action": "none",
                    "close_action": "none", "dpd_action": "clear", "child_sas": 0
                }]
            }]})),
            Request::Stats => {
                answered += 1;
                Reply::Ok(json!({
                    "reasons": {}, "members": {}, "membership": {},
                    "engine": {"init_requests": 10 + answered, "cookies_sent": 4}
                }))
            }
            other => Reply::Error(format!("{other:?}")),
        };
        let _ = call.reply.send(reply);
    }
}

impl Client {
    fn new() -> Self {
        let (stream, server) = UnixStream::pair().unwrap();
        let (calls, receiver) = mpsc::channel(4);
        let (loads, _) = mpsc::channel(4);
        let hub = Hub::default();
        tokio::spawn(agent(receiver, hub.clone()));
        let links = Links {
            calls,
            loads,
            hub: hub.clone(),
            started: SystemTime::UNIX_EPOCH,
            reset: Baseline::default(),
        };
        tokio::spawn(client::serve(server, links, Duration::from_millis(300)));
        Self { stream, hub }
    }

    async fn send(&mut self, packet: Packet) {
        self.stream
            .write_all(&packet.encode().unwrap())
            .await
            .unwrap();
    }

    async fn next(&mut self) -> Packet {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).await.unwrap();
        let mut octets = vec![0; packet_length(prefix).unwrap()];
        self.stream.read_exact(&mut octets).await.unwrap();
        Packet::parse(&octets).unwrap()
    }

    async fn register(&mut self, name: &str) -> Packet {
        self.send(Packet::Register(name.to_owned())).await;
        self.next().await
    }

    /// Events and the response.
    async fn ask(&mut self, command: &str, message: Section) -> (Vec<Section>, Section) {
        let command = command.to_owned();
        self.send(Packet::Request { command, message }).await;
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Packet::Event { message, .. } => events.push(message),
                Packet::Response(message) => return (events, message),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn fields(section: &Section) -> BTreeMap<&str, &str> {
    let names = section.entries().map(|(name, _)| name);
    names
        .filter_map(|name| Some((name, section.text(name)?)))
        .collect()
}

#[tokio::test]
async fn sas_are_listed_as_swanctl_reads_them() {
    let mut client = Client::new();
    assert_eq!(client.register("list-sa").await, Packet::Confirm);
    let (events, response) = client.ask("list-sas", Section::new()).await;
    assert!(response.is_empty() && events.len() == 1);
    let ike = events[0].section("site").unwrap();
    let shown = fields(ike);
    for (name, value) in [
        ("uniqueid", "3735928559"),
        ("state", "ESTABLISHED"),
        ("local-host", "203.0.113.10"),
        ("remote-port", "4500"),
        ("initiator-spi", "00000002cafecafe"),
        ("responder-spi", "00000001deadbeef"),
        ("encr-alg", "AES_GCM_16"),
        ("encr-keysize", "128"),
        ("prf-alg", "PRF_HMAC_SHA2_256"),
        ("dh-group", "CURVE_25519"),
        ("ake1", "ML_KEM_768"),
        ("established", "61"),
        ("nat-any", "yes"),
    ] {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
    assert!(!shown.contains_key("initiator") && !shown.contains_key("rekey-time"));
    let (name, child) = ike.section("child-sas").unwrap().sections().next().unwrap();
    assert_eq!(name, "net-168496141");
    let shown = fields(child);
    for (name, value) in [
        ("integ-alg", "HMAC_SHA2_256_128"),
        ("esn", "1"),
        ("encap", "yes"),
        ("bytes-out", "168"),
        ("reqid", "5"),
        ("life-time", "3900"),
        ("mark-in", "0000002a"),
        ("mark-out", "0000000b"),
        ("mark-mask-out", "000000ff"),
    ] {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
    // As charon: a mask of all bits is not told.
    assert!(!shown.contains_key("mark-mask-in"));
}

#[tokio::test]
async fn a_choice_is_by_name_and_by_number() {
    let mut client = Client::new();
    client.register("list-sa").await;
    for (key, value, found) in [
        ("ike", "site", 1),
        ("ike", "other", 0),
        ("ike-id", "3735928559", 1),
        ("ike-id", "1", 0),
        ("child", "net", 1),
        ("child-id", "168496141", 1),
        ("child-id", "1", 0),
    ] {
        let (events, _) = client
            .ask("list-sas", Section::new().with(key, value))
            .await;
        assert_eq!(events.len(), found, "{key} {value}");
    }
}

#[tokio::test]
async fn terminating_waits_until_it_is_gone() {
    let mut client = Client::new();
    let (_, response) = client
        .ask("terminate", Section::new().with("ike", "site"))
        .await;
    let shown = fields(&response);
    assert_eq!(shown.get("success"), Some(&"yes"));
    assert_eq!((shown["matches"], shown["terminated"]), ("1", "1"));
    let (_, response) = client
        .ask("terminate", Section::new().with("ike", "site"))
        .await;
    assert_eq!(response.text("success"), Some("no"));
    assert!(response.text("errmsg").unwrap().contains("no matching SAs"));
}

#[tokio::test]
async fn a_failed_initiation_says_why() {
    let mut client = Client::new();
    let (_, response) = client
        .ask("initiate", Section::new().with("child", "other"))
        .await;
    assert_eq!(response.text("success"), Some("no"));
    let why = response.text("errmsg").unwrap();
    assert_eq!(
        why,
        "establishing CHILD_SA 'other' failed: AUTHENTICATION_FAILED"
    );
    let (_, response) = client
        .ask("initiate", Section::new().with("child", "none"))
        .await;
    assert_eq!(
        response.text("errmsg"),
        Some("CHILD_SA config 'none' not found")
    );
}

#[tokio::test]
async fn only_those_who_registered_get_events() {
    let mut client = Client::new();
    assert_eq!(client.register("nonsense").await, Packet::UnknownEvent);
    assert_eq!(client.register("ike-updown").await, Packet::Confirm);
    for name in ["child-updown", "ike-updown"] {
        client.hub.tell(Happened {
            name,
            connection: None,
            reason: None,
            message: Section::new().with("up", "yes"),
        });
    }
    let event = tokio::time::timeout(Duration::from_secs(30), client.next())
        .await
        .unwrap();
    assert!(matches!(event, Packet::Event { name, .. } if name == "ike-updown"));
    client.send(Packet::Unregister("ike-updown".into())).await;
    assert_eq!(client.next().await, Packet::Confirm);
    client.send(Packet::Unregister("ike-updown".into())).await;
    assert_eq!(client.next().await, Packet::UnknownEvent);
}

#[tokio::test]
async fn what_is_not_known_is_said_so_and_the_client_goes_on() {
    let mut client = Client::new();
    let message = Section::new();
    client
        .send(Packet::Request {
            command: "nonsense".into(),
            message,
        })
        .await;
    assert_eq!(client.next().await, Packet::UnknownCommand);
    let (_, response) = client.ask("stats", Section::new()).await;
    let uptime = fields(response.section("uptime").unwrap());
    assert_eq!(uptime["running"], "2 hours");
    assert_eq!(uptime["since"], "Jan 01 00:00:00 1970");
    let sas = fields(response.section("ikesas").unwrap());
    assert_eq!((sas["total"], sas["half-open"]), ("3", "1"));
}

#[tokio::test]
async fn garbage_ends_the_client() {
    let mut client = Client::new();
    // A packet of 1 MiB.
    client.stream.write_all(&[0, 16, 0, 0]).await.unwrap();
    assert_eq!(client.stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn half_a_packet_is_not_waited_for() {
    let mut client = Client::new();
    client.stream.write_all(&[0, 0, 0, 9, 0]).await.unwrap();
    let mut octet = [0; 1];
    let end = tokio::time::timeout(Duration::from_secs(20), client.stream.read(&mut octet));
    assert_eq!(end.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn who_does_not_read_is_given_up() {
    let mut client = Client::new();
    client.register("ike-updown").await;
    // More than the socket holds, and all within what the hub keeps.
    for _ in 0..200 {
        client.hub.tell(Happened {
            name: "ike-updown",
            connection: None,
            reason: None,
            message: Section::new().with("filler", "x".repeat(20_000)),
        });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(
        Duration::from_secs(20),
        client.stream.read_to_end(&mut rest),
    );
    assert!(end.await.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn the_counters_of_charon_are_all_there_and_begin_anew_when_reset() {
    fn counters(response: &Section) -> BTreeMap<&str, &str> {
        fields(response.section("counters").unwrap().section("").unwrap())
    }
    let mut client = Client::new();
    let (_, response) = client.ask("get-counters", Section::new()).await;
    let before = counters(&response);
    assert_eq!(before["ike-init-in-req"], "11");
    assert_eq!(before["cookies_sent"], "4");
    // charon's have hyphens, but for one.
    let stock = before
        .keys()
        .filter(|name| name.contains('-') || **name == "invalid");
    assert_eq!(stock.count(), 21, "{before:?}");
    let (_, response) = client.ask("reset-counters", Section::new()).await;
    assert_eq!(response.text("success"), Some("yes"));
    let (_, response) = client.ask("get-counters", Section::new()).await;
    let after = counters(&response);
    assert_eq!(
        (after["ike-init-in-req"], after["cookies_sent"]),
        ("1", "0")
    );
    let one = Section::new().with("name", "site");
    let (_, response) = client.ask("reset-counters", one).await;
    assert_eq!(response.text("success"), Some("no"));
}
