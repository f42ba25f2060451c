//! Exchanges that collide (RFC 7296 §2.8, §2.25), each with every single datagram lost, late or
//! repeated, and each side a little before the other: in the end both sides have the same.
//!
//! Delays are chosen around a round trip (2 ms), a retransmission (500 ms) and the pause after
//! TEMPORARY_FAILURE (3 s).

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_ike::config::{ChildConfig, Connection};
use gateway_ike::proposal::{EspProposal, IkeProposal};

use crate::pair::{Fate, Order, Pair};

const LONG: Duration = Duration::from_secs(300);

type Tweak = fn(usize, &mut Connection, &mut ChildConfig);

/// What is left in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// One IKE SA with one CHILD_SA.
    Tunnel,
    /// One IKE SA; with or without a CHILD_SA, as the two orders came.
    IkeSa,
    /// Nothing.
    Nothing,
}

const fn fates() -> [Fate; 6] {
    [
        Fate::Lost,
        Fate::Late(Duration::from_millis(4)),
        Fate::Late(Duration::from_millis(700)),
        Fate::Late(Duration::from_millis(3500)),
        Fate::Twice(Duration::from_millis(5)),
        Fate::Twice(Duration::from_millis(1200)),
    ]
}

/// Runs both orders in all the ways, and returns what was said of failures.
fn collide(orders: [Order; 2], end: End, tweak: Tweak) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    // The second order comes when the other side's request is on its way, has just arrived, or has
    // been answered.
    for (lag, first) in [0, 700, 1800, 2600]
        .into_iter()
        .flat_map(|lag| [(lag, 0), (lag, 1)])
    {
        let run = |fate: Option<(u64, Fate)>, said: &mut BTreeSet<String>| {
            let mut pair = Pair::tweaked(5, tweak);
            (pair.sent, pair.fate) = (0, fate);
            let what = format!("{orders:?}, side {first} first, {lag} µs, {fate:?}");
            pair.order_now(first, orders[0]);
            pair.order(1 - first, Duration::from_micros(lag), orders[1]);
            pair.settle(Duration::from_secs(20));
            let sent = pair.sent;
            pair.settle(LONG);
            pair.fate = None;
            assert_end(&mut pair, end, &what);
            said.extend(pair.sides.iter().flat_map(|side| side.log.clone()));
            sent
        };
        let sent = run(None, &mut said);
        for at in 0..sent {
            for fate in fates() {
                run(Some((at, fate)), &mut said);
            }
        }
    }
    said
}

fn assert_end(pair: &mut Pair, end: End, what: &str) {
    if end == End::Tunnel {
        return pair.assert_well(what);
    }
    let [a, b] = [0, 1].map(|side| pair.sides[side].records(pair.now));
    let logs = || format!("{what}\n{:#?}\n{:#?}", pair.sides[0].log, pair.sides[1].log);
    let sas = usize::from(end == End::IkeSa);
    assert_eq!((a.len(), b.len()), (sas, sas), "{}", logs());
    let children = |records: &[gateway_ike::record::IkeSaRecord]| -> BTreeSet<_> {
        let all = records.iter().flat_map(|record| &record.children);
        all.map(|child| child.sa.id()).collect()
    };
    for (side, records) in pair.sides.iter().zip([&a, &b]) {
        assert!(
            records.iter().all(|r| r.outstanding.is_none()),
            "{}",
            logs()
        );
        let installed: BTreeSet<_> = side.kernel.keys().copied().collect();
        assert_eq!(installed, children(records), "{}", logs());
    }
    let ours = a.iter().flat_map(|r| &r.children);
    let ours: BTreeSet<_> = ours.map(|c| (c.sa.spi_in, c.sa.spi_out)).collect();
    let theirs = b.iter().flat_map(|r| &r.children);
    let theirs: BTreeSet<_> = theirs.map(|c| (c.sa.spi_out, c.sa.spi_in)).collect();
    assert_eq!(ours, theirs, "{}", logs());
    assert!(ours.len() <= 1, "{}", logs());
}

fn plain(_: usize, _: &mut Connection, _: &mut ChildConfig) {}

/// Each side prefers another key exchange method, and takes the other's, too.
fn wrong_guesses(side: usize, connection: &mut Connection, child: &mut ChildConfig) {
    let ke = ["x25519-ecp256", "ecp256-x25519"][side];
    let esp = format!("aes128gcm16-{ke}");
    child.esp_proposals = EspProposal::parse(&esp).unwrap();
    let mut ike = IkeProposal::parse(&format!("aes128gcm16-prfsha256-{ke}")).unwrap();
    // What the IKE SA itself was made with.
    ike.extend(IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap());
    connection.proposals = ike;
}

/// Additional key exchanges on both sides (RFC 9370).
fn hybrid(_: usize, connection: &mut Connection, child: &mut ChildConfig) {
    let esp = "aes128gcm16-x25519-ke1_mlkem512-ke3_ecp256";
    child.esp_proposals = EspProposal::parse(esp).unwrap();
    let ike = "aes128gcm16-prfsha256-x25519-ke1_mlkem512-ke3_ecp256";
    connection.proposals = IkeProposal::parse(ike).unwrap();
}

/// Only what side 0 begins has additional key exchanges: it prefers them, and side 1 does not.
fn half_hybrid(side: usize, connection: &mut Connection, child: &mut ChildConfig) {
    hybrid(side, connection, child);
    let esp = EspProposal::parse("aes128gcm16-x25519").unwrap();
    let ike = IkeProposal::parse("aes128gcm16-prfsha256-x25519").unwrap();
    // The responder's preference decides.
    let at = if side == 0 { 0 } else { 1 };
    child.esp_proposals.splice(at..at, esp);
    connection.proposals.splice(at..at, ike);
}

const PAIRS: [[Order; 2]; 4] = [
    [Order::RekeyChild, Order::RekeyChild],
    [Order::RekeyIke, Order::RekeyIke],
    [Order::RekeyChild, Order::RekeyIke],
    [Order::RekeyIke, Order::RekeyChild],
];

/// RFC 9370 §2.2.4: the one that loses does not go on.
#[test]
fn rekeyings_with_additional_key_exchanges() {
    for (at, orders) in PAIRS.into_iter().enumerate() {
        let said = collide(orders, End::Tunnel, hybrid);
        // Whether the refusal can come up depends on who is late, for IKE SA and CHILD_SA.
        let same = orders[0] == orders[1];
        let refusal = if same {
            "with additional key exchanges"
        } else {
            "not now"
        };
        assert!(contains(&said, refusal), "{at}: {said:#?}");
    }
}

/// The outcome of one exchange is there at once, that of the other only later.
#[test]
fn rekeyings_with_additional_key_exchanges_on_one_side() {
    for orders in PAIRS {
        collide(orders, End::Tunnel, half_hybrid);
    }
}

#[test]
fn additional_key_exchanges_and_deletion() {
    for rekey in [Order::RekeyChild, Order::RekeyIke] {
        collide([rekey, Order::Liveness], End::Tunnel, hybrid);
        for (delete, end) in [
            (Order::TerminateChild, End::IkeSa),
            (Order::Terminate, End::Nothing),
        ] {
            collide([rekey, delete], end, hybrid);
            collide([delete, rekey], end, hybrid);
        }
    }
}

fn contains(said: &BTreeSet<String>, words: &str) -> bool {
    said.iter().any(|line| line.contains(words))
}

#[test]
fn child_rekey_by_one_side() {
    collide([Order::RekeyChild, Order::Liveness], End::Tunnel, plain);
}

/// RFC 7296 §2.8.1: the one with the lowest nonce is redundant, whoever answers first, and a request
/// that comes late is refused (TEMPORARY_FAILURE, CHILD_SA_NOT_FOUND).
#[test]
fn child_rekey_and_child_rekey() {
    let said = collide([Order::RekeyChild, Order::RekeyChild], End::Tunnel, plain);
    for refusal in ["not now", "there is no CHILD_SA"] {
        assert!(contains(&said, refusal), "{refusal} never came: {said:#?}");
    }
}

#[test]
fn child_rekey_and_child_rekey_with_invalid_ke() {
    let both = [Order::RekeyChild, Order::RekeyChild];
    let said = collide(both, End::Tunnel, wrong_guesses);
    assert!(contains(&said, "key exchange method"), "{said:#?}");
}

#[test]
fn child_rekey_and_child_delete() {
    collide(
        [Order::RekeyChild, Order::TerminateChild],
        End::IkeSa,
        plain,
    );
    collide(
        [Order::TerminateChild, Order::RekeyChild],
        End::IkeSa,
        plain,
    );
}

#[test]
fn child_delete_and_child_delete() {
    let both = [Order::TerminateChild, Order::TerminateChild];
    collide(both, End::IkeSa, plain);
}

/// RFC 7296 §2.25.1, §2.25.2: both say TEMPORARY_FAILURE, and try again.
#[test]
fn child_rekey_and_ike_rekey() {
    for orders in [
        [Order::RekeyChild, Order::RekeyIke],
        [Order::RekeyIke, Order::RekeyChild],
    ] {
        let said = collide(orders, End::Tunnel, plain);
        assert!(contains(&said, "not now"), "{said:#?}");
    }
}

#[test]
fn child_rekey_and_ike_delete() {
    collide([Order::RekeyChild, Order::Terminate], End::Nothing, plain);
    collide([Order::Terminate, Order::RekeyChild], End::Nothing, plain);
}

#[test]
fn child_delete_and_ike_rekey() {
    collide([Order::TerminateChild, Order::RekeyIke], End::IkeSa, plain);
    collide([Order::RekeyIke, Order::TerminateChild], End::IkeSa, plain);
}

#[test]
fn ike_rekey_by_one_side() {
    collide([Order::RekeyIke, Order::Liveness], End::Tunnel, plain);
}

/// RFC 7296 §2.8.2.
#[test]
fn ike_rekey_and_ike_rekey() {
    collide([Order::RekeyIke, Order::RekeyIke], End::Tunnel, plain);
}

#[test]
fn ike_rekey_and_ike_rekey_with_invalid_ke() {
    let both = [Order::RekeyIke, Order::RekeyIke];
    collide(both, End::Tunnel, wrong_guesses);
}

#[test]
fn ike_rekey_and_ike_delete() {
    collide([Order::RekeyIke, Order::Terminate], End::Nothing, plain);
    collide([Order::Terminate, Order::RekeyIke], End::Nothing, plain);
}

#[test]
fn ike_delete_and_ike_delete() {
    collide([Order::Terminate, Order::Terminate], End::Nothing, plain);
}
