//! What the cluster is compared with: two stock strongSwan gateways, of which the second takes the
//! address when the first is gone, and whose peers have to negotiate anew.
//!
//! strongSwan's `ha` plugin has no row. Debian 12 packages it (libcharon-extra-plugins), and Debian's 6.1 kernel
//! has the netfilter target that it drives (`CONFIG_IP_NF_TARGET_CLUSTERIP=m`, gone since Linux 6.3),
//! so it may run in the VM, where times are not judged; it has not been tried. On a kernel from 6.3
//! on, as on the hosts that measure, it cannot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::Context;
use super::super::stock::Stock;
use super::judge::{Outcome, milliseconds};
use super::rig::SITES;
use crate::lab::{
    Fault, Moment, Plan, Probes, Taps, Traffic, probe_interval, replay_drops, wait_until,
};

/// What the rows call it.
pub(super) const SYSTEM: &str = "strongSwan 5.9.8 pair, address moved as by VRRP";
/// How fast it is. The peers' timers are far below the defaults, with which they take minutes; charon
/// knows no DPD interval below a second.
pub(super) struct Pace {
    /// What the rows say about its timers.
    pub(super) profile: &'static str,
    /// Three advertisements of VRRP (RFC 5798 §6.1), without the skew.
    master_down: Duration,
}

/// VRRP's default interval, and the shortest that operators set.
pub(super) const PACES: [Pace; 2] = [
    Pace {
        profile: "default: advertisements 1 s, dpd_delay 1 s, retransmissions 0.5 s x 2",
        master_down: Duration::from_secs(3),
    },
    Pace {
        profile: "fast: advertisements 0.1 s, dpd_delay 1 s, retransmissions 0.5 s x 2",
        master_down: Duration::from_millis(300),
    },
];

/// The first gateway's host is gone in mid-traffic.
pub(super) fn renegotiating(context: &Context, pace: &Pace) -> Result<Outcome> {
    let plan = Plan {
        members: 2,
        sites: SITES,
        ..Plan::default()
    };
    let stock = Stock::impatient(context, "bench-stock", plan)?;
    let names: Vec<String> = (1..=SITES).map(|number| format!("site-{number}")).collect();
    let failed = stock.peer.initiate_all(&names, 4, 30);
    ensure!(failed.is_empty(), "tunnels failed: {failed:?}");
    let before = stock.peer.ike_sas()?;
    let replays = replay_drops(&stock.network.peer)? + stock.peer.replays_refused();
    let taps = Taps::start(&stock.network)?;
    let traffic = Traffic::start(&stock.network, SITES, probe_interval())?;
    std::thread::sleep(Duration::from_secs(1));
    let at = Moment::now();
    stock.network.unplug(1)?;
    std::thread::sleep(pace.master_down);
    stock.network.add_vip(stock.network.member(2)?)?;
    stock.network.spray_among(&[2])?;
    stock.network.inside_among(&[2])?;
    let moved = Moment::now();
    // Twice the number of SAs that there were: each has been begun again.
    wait_until(
        Duration::from_secs(60),
        "the peer to have all tunnels again",
        || {
            let sas = stock.peer.ike_sas()?;
            let anew = |name: &String| {
                let old = before.get(name).and_then(|old| old.first());
                sas.get(name)
                    .is_some_and(|now| now.iter().any(|sa| Some(sa) != old))
            };
            Ok(names.iter().all(anew))
        },
    )?;
    std::thread::sleep(Duration::from_secs(2));
    let probes = traffic.finish()?;
    let evidence = taps.finish()?;
    let after = replay_drops(&stock.network.peer)? + stock.peer.replays_refused();
    let gaps = probes
        .iter()
        .map(|one| milliseconds(one.longest_silence().0));
    Ok(Outcome {
        fault: Fault::MemberRemoved.as_str(),
        sas: before.len(),
        detected_ms: Some(milliseconds(moved.since(at))),
        withdrawn_ms: Some(milliseconds(moved.since(at))),
        gap_ms: gaps.reduce(f64::max),
        others_gap_ms: None,
        probe_interval_ms: milliseconds(probe_interval()),
        probes: probes.iter().map(|one| one.sent.len()).sum(),
        probes_lost: probes.iter().map(Probes::lost).sum(),
        // Every one: what is there now was negotiated anew.
        lost_ike_sas: before.len(),
        new_ike_sa_inits: evidence.new_negotiations(at),
        replay_drops_at_peer: after.saturating_sub(replays),
        repeated_sequence_numbers: evidence.repeated().len(),
        esp_captured: evidence.esp_packets(),
        moved_sas: evidence.moved_spis(),
        fenced: BTreeMap::new(),
    })
}
