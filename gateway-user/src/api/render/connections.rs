//! Tables of `gatewayctl connections` and the answers to orders about them.

use std::fmt::Write;

use super::text::duration;
use crate::api::model::{ConnectionInfo, Connections, Ordered, Reloaded};

/// `gatewayctl connections`, in the layout of `swanctl --list-conns`.
pub fn connections(connections: &Connections) -> String {
    if connections.connections.is_empty() {
        return "no connections configured\n".into();
    }
    connections.connections.iter().map(connection).collect()
}

/// `gatewayctl reload`.
pub fn reloaded(reloaded: &Reloaded) -> String {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let mut text = format!(
        "connections added: {}\nchanged: {}\nremoved: {}\n",
        list(&reloaded.added),
        list(&reloaded.changed),
        list(&reloaded.removed),
    );
    for table in &reloaded.needs_restart {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "[{table}] has changed: that takes effect at the next start"
        );
    }
    text
}

fn connection(connection: &ConnectionInfo) -> String {
    let any = |list: &[String]| {
        if list.is_empty() {
            "%any".to_owned()
        } else {
            list.join(", ")
        }
    };
    let owner = match connection.owner {
        0 => "nobody".to_owned(),
        member => format!("member {member}"),
    };
    let mut text = format!(
        "{}: IKEv2, slot {}, initiated by {owner}, {} IKE SAs up{}\n  local:  {}\n    {}, id {}\n  \
         remote: {}\n    {}, id {}\n",
        connection.name,
        connection.slot,
        connection.ike_sas,
        if connection.loaded {
            ", loaded by swanctl"
        } else {
            ""
        },
        any(&connection.local_addrs),
        connection.local_auth,
        connection.local_id,
        any(&connection.remote_addrs),
        connection.remote_auth,
        connection.remote_id,
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "  {}", connection.proposals.join(", "));
    let _ = writeln!(text, "  {}", times(connection));
    for child in &connection.children {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  {}: TUNNEL, {} up, {}, start_action {}, close_action {}, dpd_action {}\n    local:  {}\n    \
             remote: {}",
            child.name,
            child.child_sas,
            child.esp_proposals.join(", "),
            child.start_action,
            child.close_action,
            child.dpd_action,
            child.local_ts.join(" "),
            child.remote_ts.join(" "),
        );
    }
    text
}

fn times(connection: &ConnectionInfo) -> String {
    let of = |seconds: u64| match seconds {
        0 => "never".to_owned(),
        seconds => format!("every {}", duration(seconds as f64)),
    };
    let dpd = match connection.dpd_delay {
        0 => "never".to_owned(),
        seconds => format!("after {}", duration(seconds as f64)),
    };
    format!(
        "rekeying {}, reauthentication {}, liveness check {dpd}, unique {}",
        of(connection.rekey_time),
        of(connection.reauth_time),
        connection.unique
    )
}

/// What has become of `gatewayctl initiate`, `terminate` and `rekey`.
pub fn ordered(ordered: &Ordered) -> String {
    let mut parts = Vec::new();
    if ordered.here > 0 {
        parts.push("begun on this member".to_owned());
    }
    parts.extend(
        ordered
            .passed_on
            .iter()
            .map(|member| format!("passed on to member {member}")),
    );
    parts.extend(ordered.waiting.iter().map(|slot| {
        format!(
            "nobody serves slot {slot} now: it waits for that for 10 s (\"gatewayctl view\" shows \
             who owns what)"
        )
    }));
    if parts.is_empty() {
        return "there is no such SA in the cluster: nothing was done\n".into();
    }
    format!(
        "{}; the log and \"gatewayctl sas\" show what comes of it\n",
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_who_carries_it_out() {
        let text = ordered(&Ordered {
            here: 1,
            passed_on: vec![3],
            waiting: vec![7],
        });
        assert!(text.starts_with(
            "begun on this member, passed on to member 3, nobody serves slot 7 now: it waits"
        ));
    }
}
