//! The dashboard and the alert rules ask for metrics that there are.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tower::ServiceExt;

use super::super::access::Peer;
use super::super::{Rest, routes};
use super::{config, request, text};
use crate::api::Call;
use crate::api::model::{Reply, Request};
use crate::config::RestAccess;

const USED: [(&str, &str); 2] = [
    (
        "deploy/grafana/gateway.json",
        include_str!("../../../../deploy/grafana/gateway.json"),
    ),
    (
        "deploy/prometheus/alerts.yml",
        include_str!("../../../../deploy/prometheus/alerts.yml"),
    ),
];

/// Answers of a member with one peer, one problem and one counter of each kind.
fn answer(request: &Request) -> Value {
    match request {
        Request::Status => json!({"member": 1, "name": "one", "cluster": "c",
            "mode": "load-sharing", "version": "0", "uptime_seconds": 1.0, "state": "ACTIVE",
            "ike_forwarding": true, "steering": {"mode": "native", "interfaces": []},
            "kernel_backend": "xfrm", "esp_algorithms_ready": true, "slots_owned": 256,
            "half_open": 0, "ike_sas": 0, "child_sas": 0, "table": {"entries": 0, "max_entries": 16}, "peers_connected": 1,
            "epoch": 1}),
        Request::Stats => {
            let count = json!({"packets": 1, "bytes": 100});
            json!({"reasons": {"esp_local": count}, "engine": {"x": 1}, "membership": {"x": 1},
                "members": {"2": {"forwarded": count, "received": count}}})
        }
        Request::Members => json!({"mode": "load-sharing", "failback": "maintain-active",
            "epoch": 1, "problems": [], "failovers": 0, "failovers_since": 0.0, "last_failover": null,
            "members": [{"id": 1, "name": "one", "local": true,
            "sync_address": "10.99.0.1", "state": "ACTIVE", "previous_state": null, "connected": true, "in_sync": true,
            "slots": 256, "sent": 0, "acknowledged": 0, "received": 0, "epoch": 1, "run": "1",
            "last_change_seconds": 1.0, "reason": "", "problems": 0, "drained": false,
            "config_differs": false, "load": 0, "links": []}]}),
        Request::View => json!({"epoch": 1, "admitted": true, "active": true, "lease_ms": 5,
            "unsafe_takeover": false, "real_time": true, "witness_heard_seconds": null,
            "members": [], "slots": []}),
        Request::History => json!({"failovers": 0, "events": []}),
        Request::Pnotes => json!({"pnotes": [{"name": "sync", "state": "problem", "reason": "x",
            "age_seconds": 1.0, "timeout_seconds": null}]}),
        Request::Sync => {
            let peer = json!({"id": 2, "name": "two", "connected": true, "in_sync": true,
                "complete": true, "sent": 0, "acknowledged": 0, "lag": 0, "lag_bytes": 0,
                "lag_seconds": 0.0, "peak_deltas": 0, "peak_bytes": 0, "received": 0,
                "round_trip_ms": null, "connections": 1, "resumptions": 0, "deltas_resent": 0,
                "snapshots_sent": 0, "snapshots_received": 0, "last_full_sync": null,
                "lagged": 0, "nudged": 0, "last_error": null});
            json!({"epoch": 1, "levelled": 1, "published": 0, "released": 0,
                "retained_deltas": 0, "retained_bytes": 0, "peak_deltas": 0, "peak_bytes": 0,
                "messages_held": 0, "records": 0, "record_bytes": 0, "bytes_sent": 0,
                "bytes_received": 0, "peers": [peer]})
        }
        other => panic!("/metrics asked for {other:?}"),
    }
}

fn member() -> Router {
    let (calls, mut received) = mpsc::channel::<Call>(8);
    tokio::spawn(async move {
        while let Some(call) = received.recv().await {
            let _ = call.reply.send(Reply::Ok(answer(&call.request)));
        }
    });
    let events = broadcast::Sender::new(4);
    let rest = Rest::new(&config(100), RestAccess::default(), calls, events);
    routes::app(rest).layer(MockConnectInfo(Peer::Local { uid: 0 }))
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[tokio::test]
async fn every_metric_that_the_examples_use_is_emitted() {
    let asked = request("GET", "/metrics", None, "");
    let response = member().oneshot(asked).await.unwrap();
    let status = response.status();
    let exposition = text(response).await;
    assert_eq!(status, StatusCode::OK, "{exposition}");
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    let emitted: BTreeSet<&str> = samples
        .filter_map(|line| line.split(|c| !is_part(c)).next())
        .collect();
    for (file, content) in USED {
        let words = content.split(|c| !is_part(c));
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("ipsec_")).collect();
        assert!(used.len() >= 8, "{file}: {used:?}");
        let missing: Vec<_> = used.difference(&emitted).collect();
        assert!(missing.is_empty(), "{file} uses {missing:?}");
    }
}

#[test]
fn the_dashboard_is_json_with_panels_beside_each_other() {
    let dashboard: Value = serde_json::from_str(USED[0].1).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}
