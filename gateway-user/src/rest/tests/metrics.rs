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

const USED: [(&str, &str); 3] = [
    (
        "deploy/grafana/gateway.json",
        include_str!("../../../../deploy/grafana/gateway.json"),
    ),
    (
        "deploy/prometheus/alerts.yml",
        include_str!("../../../../deploy/prometheus/alerts.yml"),
    ),
    (
        "deploy/prometheus/alerts_test.yml",
        include_str!("../../../../deploy/prometheus/alerts_test.yml"),
    ),
];

/// Labels that Prometheus gives to what it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

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
        Request::Members => {
            let member = |id: u8, name: &str| {
                json!({"id": id, "name": name, "local": id == 1, "sync_address": "10.99.0.1",
                    "state": "ACTIVE", "previous_state": null, "connected": true, "in_sync": true,
                    "slots": 256, "sent": 0, "acknowledged": 0, "received": 0, "epoch": 1,
                    "run": "1", "last_change_seconds": 1.0, "reason": "", "problems": 0,
                    "drained": false, "config_differs": false, "load": 0, "links": []})
            };
            json!({"mode": "load-sharing", "failback": "maintain-active", "epoch": 1,
                "problems": [], "failovers": 0, "failovers_since": 0.0, "last_failover": null,
                "members": [member(1, "one"), member(2, "two")]})
        }
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

/// What a member answers to `/metrics`, without comments.
async fn samples() -> Vec<String> {
    let asked = request("GET", "/metrics", None, "");
    let response = member().oneshot(asked).await.unwrap();
    let status = response.status();
    let exposition = text(response).await;
    assert_eq!(status, StatusCode::OK, "{exposition}");
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    samples.map(str::to_owned).collect()
}

/// Name and labels' names of a series, without what scraping adds.
fn shape(series: &str) -> (String, BTreeSet<String>) {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
    let labels = labels
        .split(',')
        .filter_map(|label| Some(label.split_once('=')?.0));
    let labels = labels.filter(|label| !SCRAPED.contains(label));
    let name = name.split(' ').next().unwrap_or_default();
    (name.to_owned(), labels.map(str::to_owned).collect())
}

#[tokio::test]
async fn every_metric_that_the_examples_use_is_emitted() {
    let samples = samples().await;
    let emitted: BTreeSet<&str> = samples
        .iter()
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

/// The rules are tested with series that a member has, to the label.
#[tokio::test]
async fn the_series_of_the_alert_tests_are_emitted() {
    let emitted: BTreeSet<_> = samples().await.iter().map(|line| shape(line)).collect();
    let series = USED[2].1.lines().filter_map(|line| {
        let (_, series) = line.split_once("series: '")?;
        series.split_once('\'').map(|(series, _)| series)
    });
    let series: Vec<_> = series.filter(|text| text.starts_with("ipsec_")).collect();
    assert!(series.len() >= 30, "{series:?}");
    for one in series {
        assert!(emitted.contains(&shape(one)), "{one}");
    }
}

#[tokio::test]
async fn a_member_has_one_name_in_all_series() {
    let all = samples().await;
    let of_members = all.iter().filter(|line| line.contains("member=\""));
    let names = of_members.map(|line| line.split("member=\"").nth(1).unwrap());
    let names: BTreeSet<_> = names.map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["one", "two"]);
}

/// What Grafana's schema of dashboards asks of the fields that are used.
#[test]
fn the_dashboard_keeps_grafanas_schema() {
    let dashboard: Value = serde_json::from_str(USED[0].1).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    assert!((8..=40).contains(&dashboard["uid"].as_str().unwrap().len()));
    let list = dashboard["templating"]["list"].as_array().unwrap();
    let mut known: BTreeSet<&str> = list.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert!(
        list.iter()
            .all(|v| v["type"] == "datasource" || v["type"] == "query")
    );
    known.extend(["__rate_interval", "__range"]);
    let used = USED[0].1.split('$').skip(1).map(|text| {
        let text = text.trim_start_matches('{');
        text.split(|c| !is_part(c)).next().unwrap()
    });
    for name in used {
        assert!(known.contains(name), "${name} is no variable");
    }
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id");
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().unwrap()));
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string());
        assert!(panel["fieldConfig"]["overrides"].is_array(), "{title}");
        for (index, target) in panel["targets"].as_array().unwrap().iter().enumerate() {
            let letter = char::from(b'A' + u8::try_from(index).unwrap());
            assert_eq!(target["refId"], letter.to_string(), "{title}");
            assert!(target["expr"].is_string(), "{title}");
        }
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(x < 24 && taken.insert((y, x)), "{title}: place");
            }
        }
    }
    let rows = taken.iter().map(|(y, _)| y + 1).max().unwrap();
    let filled = u64::try_from(taken.len()).unwrap();
    assert_eq!(filled, rows * 24, "there are holes");
}
