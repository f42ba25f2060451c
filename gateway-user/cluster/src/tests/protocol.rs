//! Peers that do not keep to the protocol.

use super::net::{Net, config, cookie, established, id};
use crate::Cluster;
use crate::change::{Change, Mirror, Sa, Stamp};
use crate::config::Limits;
use crate::frame::{DeltaSeq, Frame, Hello, Incarnation, MAX_FRAME, PROTOCOL, Scope, Taken};
use crate::output::{Event, Output, Violation};
use crate::secret::Secret;
use crate::slot_set::SlotSet;
use crate::view::Epoch;
use gateway_common::{slot::Slot, time::Instant};

const NOW: Instant = Instant::from_nanos(1);

/// Member 1 of three, with an open connection to member 2, which the test plays.
fn connected() -> Cluster {
    let mut core = Cluster::new(config(1, 3, 1, &Limits::default()), NOW);
    core.handle_connected(NOW, id(2));
    outputs(&mut core);
    core
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        member: id(2),
        incarnation: Incarnation(5),
        cluster_id: 1,
        cluster_name: "hq".into(),
        config_hash: [7; 32],
        received: None,
    }
}

/// As [`connected`], after the hellos and an empty snapshot.
fn greeted() -> Cluster {
    let mut core = connected();
    for frame in [
        Frame::Hello(hello()),
        begin(1, 0),
        Frame::SnapshotEnd { entries: 0 },
    ] {
        say(&mut core, &frame);
    }
    core
}

fn begin(snapshot: u64, seq: u64) -> Frame {
    Frame::SnapshotBegin {
        snapshot,
        seq: DeltaSeq(seq),
        scope: Scope {
            epoch: Epoch(1),
            slots: SlotSet::EMPTY,
        },
    }
}

fn outputs(core: &mut Cluster) -> Vec<Output> {
    std::iter::from_fn(|| core.poll_output()).collect()
}

fn say(core: &mut Cluster, frame: &Frame) -> Vec<Output> {
    core.handle_frame(NOW, id(2), frame.encode().expose());
    outputs(core)
}

fn violation(outputs: &[Output]) -> Option<Violation> {
    let closed = outputs.contains(&Output::Disconnect(id(2)));
    outputs.iter().find_map(|output| match output {
        Output::Event(Event::ProtocolError { violation, .. }) if closed => Some(violation.clone()),
        _ => None,
    })
}

fn refusal(hello: Hello) -> String {
    let mut core = connected();
    let outputs = say(&mut core, &Frame::Hello(hello));
    assert!(outputs.contains(&Output::Disconnect(id(2))), "{outputs:?}");
    assert!(!core.is_up(id(2)));
    let reason = outputs.into_iter().find_map(|output| match output {
        Output::Event(Event::PeerRefused { reason, .. }) => Some(reason),
        _ => None,
    });
    reason.unwrap()
}

#[test]
fn a_hello_that_does_not_fit_is_refused() {
    let other_member = Hello {
        member: id(3),
        ..hello()
    };
    assert!(refusal(other_member).contains("certificate says member 2"));
    let other_id = Hello {
        cluster_id: 2,
        ..hello()
    };
    assert!(refusal(other_id).contains("cluster id 2"));
    let other_name = Hello {
        cluster_name: "branch".into(),
        ..hello()
    };
    assert!(refusal(other_name).contains("branch"));
}

#[test]
fn another_configuration_is_reported_once() {
    let differs = Hello {
        config_hash: [8; 32],
        ..hello()
    };
    let mut core = connected();
    let event = Output::Event(Event::ConfigurationDiffers { member: id(2) });
    assert!(say(&mut core, &Frame::Hello(differs.clone())).contains(&event));
    assert!(core.is_up(id(2)) && core.status().peers[0].config_differs);
    core.handle_connected(NOW, id(2));
    assert!(!say(&mut core, &Frame::Hello(differs)).contains(&event));
}

#[test]
fn a_later_protocol_level_is_welcome() {
    let later = Hello {
        protocol: PROTOCOL + 1,
        ..hello()
    };
    let mut core = connected();
    say(&mut core, &Frame::Hello(later));
    assert!(core.is_up(id(2)));
    assert_eq!(violation(&say(&mut core, &Frame::Unknown(99))), None);
}

#[test]
fn nothing_counts_before_the_hello_and_no_second_one() {
    let mut core = connected();
    let early = say(&mut core, &Frame::Ping { nonce: 1 });
    assert_eq!(violation(&early), Some(Violation::HelloOutOfPlace));
    // Frames on the closed connection are ignored until the next one.
    assert_eq!(say(&mut core, &Frame::Hello(hello())), []);
    let again = say(&mut greeted(), &Frame::Hello(hello()));
    assert_eq!(violation(&again), Some(Violation::HelloOutOfPlace));
}

fn delta(seq: u64) -> Frame {
    Frame::Delta {
        seq: DeltaSeq(seq),
        slot: Slot(1),
        change: established(cookie(2, 1, 1), seq as u8),
    }
}

#[test]
fn gaps_are_refused_and_repetitions_ignored() {
    let mut core = greeted();
    assert_eq!(violation(&say(&mut core, &delta(1))), None);
    assert_eq!(violation(&say(&mut core, &delta(2))), None);
    assert_eq!(violation(&say(&mut core, &delta(1))), None);
    assert_eq!(core.status().peers[0].counters.deltas_duplicate, 1);
    let gap = say(&mut core, &delta(4));
    assert_eq!(violation(&gap), Some(Violation::Gap { after: 2, got: 4 }));
    // What was applied stays.
    assert_eq!(core.ownership().sas().count(), 1);
}

#[test]
fn deltas_need_a_snapshot_first() {
    let mut core = connected();
    say(&mut core, &Frame::Hello(hello()));
    let early = say(&mut core, &delta(1));
    assert_eq!(violation(&early), Some(Violation::NoSnapshot));
}

#[test]
fn a_new_run_has_to_begin_with_a_snapshot() {
    let mut core = greeted();
    say(&mut core, &delta(1));
    core.handle_connected(NOW, id(2));
    let new_run = Hello {
        incarnation: Incarnation(6),
        ..hello()
    };
    say(&mut core, &Frame::Hello(new_run));
    assert!(!core.status().peers[0].complete);
    let early = say(&mut core, &delta(2));
    assert_eq!(violation(&early), Some(Violation::NoSnapshot));
    // The same run goes on where it was.
    let mut core = greeted();
    say(&mut core, &delta(1));
    core.handle_connected(NOW, id(2));
    say(&mut core, &Frame::Hello(hello()));
    assert_eq!(violation(&say(&mut core, &delta(2))), None);
}

#[test]
fn an_incomplete_snapshot_has_no_effect() {
    let mut core = greeted();
    say(&mut core, &delta(1));
    say(&mut core, &begin(2, 9));
    let end = say(&mut core, &Frame::SnapshotEnd { entries: 1 });
    let expected = Violation::SnapshotIncomplete {
        got: 0,
        announced: 1,
    };
    assert_eq!(violation(&end), Some(expected));
    assert_eq!(core.ownership().sas().count(), 1);
    let mut core = greeted();
    let end = say(&mut core, &Frame::SnapshotEnd { entries: 0 });
    assert!(violation(&end).is_some(), "an end without a beginning");
}

#[test]
fn a_snapshot_has_no_removals() {
    let mut core = greeted();
    say(&mut core, &begin(2, 9));
    let removal = Frame::Entry {
        written: Stamp::default(),
        slot: Slot(1),
        change: Change::SaRemoved { local_spi: [1; 8] },
    };
    let answer = say(&mut core, &removal);
    assert_eq!(violation(&answer), Some(Violation::NotAnEntry));
}

#[test]
fn what_was_not_sent_cannot_be_acknowledged() {
    let mut core = greeted();
    let ack = |seq| Frame::Ack {
        seq: DeltaSeq(seq),
        epoch: Epoch(1),
        levelled: Epoch(1),
        taken: Some(Taken {
            snapshot: 1,
            entries: 0,
            complete: true,
        }),
    };
    assert_eq!(violation(&say(&mut core, &ack(0))), None);
    assert!(core.status().peers[0].in_sync);
    let expected = Violation::AckOfUnsent { got: 1, sent: 0 };
    assert_eq!(violation(&say(&mut core, &ack(1))), Some(expected));
    assert!(!core.status().peers[0].in_sync);
}

#[test]
fn garbage_closes_the_connection() {
    let mut core = greeted();
    core.handle_frame(NOW, id(2), b"GET / HTTP/1.1\r\n");
    let answer = outputs(&mut core);
    assert!(matches!(violation(&answer), Some(Violation::Malformed(_))));
    assert!(answer.contains(&Output::PeerDown(id(2))));
    assert_eq!(core.status().peers[0].counters.protocol_errors, 1);
}

#[test]
fn strangers_are_disconnected() {
    let mut core = connected();
    core.handle_connected(NOW, id(9));
    assert_eq!(outputs(&mut core), [Output::Disconnect(id(9))]);
    core.handle_frame(NOW, id(9), Frame::Ping { nonce: 1 }.encode().expose());
    core.handle_connected(NOW, id(1));
    assert_eq!(outputs(&mut core), [Output::Disconnect(id(1))]);
}

#[test]
fn a_record_that_fits_no_frame_is_refused() {
    let mut net = Net::connected(2, &Limits::default());
    let change = Change::SaUpsert(Sa {
        local_spi: [1; 8],
        children: Vec::new(),
        record: Secret::new(vec![0; MAX_FRAME]),
        ..Sa::default()
    });
    let refused = net.publish(1, change, Mirror::Urgent);
    assert!(refused.unwrap_err().to_string().contains("at most 1048576"));
    assert_eq!(net.core(1).ownership().sas().count(), 0);
}

#[test]
fn no_key_material_is_printed() {
    let core = greeted();
    let sa = established(cookie(1, 1, 1), 0xab);
    let text = format!("{core:?} {sa:?}");
    assert!(text.contains("Secret(300 octets)") && !text.contains("171, 171"));
}
