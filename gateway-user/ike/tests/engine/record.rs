//! Records: round trip, unknown values, hostile octets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_ike::crypto::{Encryption, KeyExchangeMethod, Prf};
use gateway_ike::identity::Identity;
use gateway_ike::keys::{IkeKeys, SkD, SkE, SkP};
use gateway_ike::mark::{Mark, Marks};
use gateway_ike::output::{ChildSa, Path, Quota, TrafficSelector};
use gateway_ike::proposal::{AdditionalKes, IkeProposal};
use gateway_ike::record::{
    CachedResponse, ChildOffer, ChildRecord, ChildState, Contact, FollowUp, IkeOffer, IkeSaRecord,
    KeyExchangeState, KeyInputs, NatState, OutstandingRequest, PeerFollowUp, Purpose, RecordError,
    Rival, Role, Settled, TransportState, Unknown,
};
use gateway_ike::secret::SecretBytes;
use proptest::prelude::*;

use crate::config::config;
use crate::gateway::Gateway;
use crate::initiator::Initiator;

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| IpAddr::V4(Ipv4Addr::from(a))),
        // Not a mapped IPv4 address: that one is its IPv4 address.
        any::<[u8; 15]>().prop_map(|rest| {
            let mut octets = [0x20; 16];
            octets[1..].copy_from_slice(&rest);
            IpAddr::V6(Ipv6Addr::from(octets))
        }),
    ]
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    (address(), any::<u16>()).prop_map(SocketAddr::from)
}

fn secret(len: usize) -> impl Strategy<Value = SecretBytes> {
    prop::collection::vec(any::<u8>(), len).prop_map(SecretBytes::new)
}

fn encryption() -> impl Strategy<Value = Encryption> {
    prop::sample::select(Encryption::all().collect::<Vec<_>>())
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        address().prop_map(Identity::Ip),
        "[a-z]{1,20}\\.[a-zA-Z]{2,6}".prop_map(Identity::Fqdn),
        "[a-z]{1,10}@[a-z]{1,10}".prop_map(Identity::Rfc822),
    ]
}

fn unknown(from: u16) -> impl Strategy<Value = Vec<Unknown>> {
    prop::collection::btree_map(from.., prop::collection::vec(any::<u8>(), 0..40), 0..3).prop_map(
        |values| {
            values
                .into_iter()
                .map(|(kind, value)| Unknown {
                    kind,
                    value: SecretBytes::new(value),
                })
                .collect()
        },
    )
}

fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let selector = (any::<u8>(), any::<[u16; 2]>(), address(), address()).prop_map(
        |(protocol, [start_port, end_port], start, end)| TrafficSelector {
            protocol,
            start_port,
            end_port,
            start,
            end,
        },
    );
    prop::collection::vec(selector, 0..5)
}

fn children(connection: String, slot: Slot) -> impl Strategy<Value = Vec<ChildRecord>> {
    let child = (
        (
            "[a-z]{0,12}",
            any::<[u8; 4]>(),
            any::<[u8; 4]>(),
            address(),
            address(),
        ),
        (
            any::<Option<(u16, u16)>>(),
            encryption(),
            any::<bool>(),
            any::<u32>(),
        ),
        (
            selectors(),
            selectors(),
            any::<u32>(),
            any::<u32>(),
            any::<u64>(),
            any::<u64>(),
        ),
        (
            secret(96),
            secret(96),
            unknown(1000),
            any::<Option<u64>>(),
            prop_oneof![
                Just(ChildState::Current),
                Just(ChildState::Replaced),
                Just(ChildState::Closing)
            ],
        ),
    )
        .prop_map(move |(a, b, c, d)| {
            let key =
                |secret: &SecretBytes| SecretBytes::from(&secret.expose()[..b.1.keymat_len()]);
            ChildRecord {
                sa: ChildSa {
                    name: a.0,
                    connection: connection.clone(),
                    slot,
                    spi_in: a.1,
                    spi_out: a.2,
                    local: a.3,
                    remote: a.4,
                    encap: b.0,
                    encryption: b.1,
                    key_in: key(&d.0),
                    key_out: key(&d.1),
                    esn: b.2,
                    replay_window: b.3,
                    local_ts: c.0,
                    remote_ts: c.1,
                    if_id_in: c.2,
                    if_id_out: c.3,
                    marks: Marks {
                        inbound: Mark::new(c.2, c.3),
                        inbound_sa: b.2,
                        outbound: Mark::new(c.3, 0xff),
                        set_in: Mark::new(c.2, 0xf0),
                        set_out: Mark::new(c.3, c.2),
                    },
                    hard_lifetime_seconds: c.4,
                    quota: Quota {
                        soft_bytes: c.4 / 2,
                        hard_packets: c.4 % 3,
                        ..Quota::default()
                    },
                },
                age: Duration::from_nanos(c.5),
                rekey_after: d.3.map(Duration::from_nanos),
                state: d.4,
                unknown: d.2,
            }
        });
    prop::collection::vec(child, 0..4)
}

/// SK_d, SK_ei, SK_er, SK_pi, SK_pr; not yet as `IkeKeys`, which cannot be printed.
fn keys(proposal: IkeProposal) -> impl Strategy<Value = [SecretBytes; 5]> {
    let (prf, enc) = (proposal.prf.output_len(), proposal.encryption.keymat_len());
    [
        secret(prf).boxed(),
        secret(enc).boxed(),
        secret(enc).boxed(),
        secret(prf).boxed(),
        secret(prf).boxed(),
    ]
}

fn proposal() -> impl Strategy<Value = IkeProposal> {
    let prf = prop::sample::select(Prf::ALL.to_vec());
    let ke = || prop::sample::select(KeyExchangeMethod::ALL.to_vec());
    let additional = prop::array::uniform7(prop::option::of(ke()));
    (encryption(), prf, ke(), additional).prop_map(|(encryption, prf, ke, additional)| {
        IkeProposal {
            encryption,
            prf,
            ke,
            additional: AdditionalKes::new(additional),
        }
    })
}

fn last_response() -> impl Strategy<Value = Option<CachedResponse>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop::option::of(
        (any::<u32>(), any::<[u8; 32]>(), bytes).prop_map(|(id, digest, bytes)| CachedResponse {
            message_id: id,
            request_digest: digest,
            bytes: bytes.into(),
        }),
    )
}

fn key_exchange() -> impl Strategy<Value = KeyExchangeState> {
    let method = prop_oneof![
        Just(KeyExchangeMethod::X25519),
        Just(KeyExchangeMethod::Ecp256)
    ];
    (method, secret(32)).prop_map(|(method, private)| KeyExchangeState { method, private })
}

fn rival<S: std::fmt::Debug>(
    spi: impl Strategy<Value = S>,
) -> impl Strategy<Value = Option<Rival<S>>> {
    let nonce = prop::collection::vec(any::<u8>(), 16..64);
    prop::option::of((spi, nonce).prop_map(|(spi, lowest_nonce)| Rival { spi, lowest_nonce }))
}

/// A CHILD_SA or an IKE SA that additional key exchanges are about to make.
fn follow_up(connection: String, slot: Slot) -> BoxedStrategy<FollowUp> {
    let nonce = || prop::collection::vec(any::<u8>(), 16..64);
    let methods = prop::sample::subsequence(KeyExchangeMethod::ALL.to_vec(), 0..4);
    let child = children(connection, slot).prop_filter_map("no child", |mut all| all.pop());
    let child = (child, any::<Option<[u8; 4]>>()).prop_map(|(child, rekeys)| Settled::Child {
        sa: Box::new(child.sa),
        rekeys,
    });
    let ike = (any::<[[u8; 8]; 2]>(), proposal()).prop_map(|(spis, proposal)| Settled::Ike {
        local_spi: spis[0],
        remote_spi: spis[1],
        proposal,
    });
    let shared = prop::collection::vec(secret(32), 0..4);
    let settled = prop_oneof![child, ike];
    (settled, nonce(), nonce(), shared, methods)
        .prop_map(|(settled, nonce_i, nonce_r, shared, pending)| FollowUp {
            settled,
            inputs: KeyInputs {
                nonces: (nonce_i, nonce_r),
                shared,
            },
            pending,
        })
        .boxed()
}

fn follow_ups(connection: String, slot: Slot) -> BoxedStrategy<Vec<PeerFollowUp>> {
    let one = (any::<[u8; 8]>(), any::<u64>(), follow_up(connection, slot));
    let one = one.prop_map(|(link, left, follow_up)| PeerFollowUp {
        link,
        left: Duration::from_nanos(left),
        follow_up,
    });
    prop::collection::vec(one, 0..3).boxed()
}

fn purpose(connection: &str, slot: Slot) -> BoxedStrategy<Purpose> {
    let follow_up = || prop::option::of(follow_up(connection.to_owned(), slot).prop_map(Box::new));
    let spis = || prop::collection::vec(any::<[u8; 4]>(), 0..4);
    prop_oneof![
        Just(Purpose::Liveness),
        Just(Purpose::CloseIke),
        spis().prop_map(Purpose::CloseChildren),
        (
            "[a-z]{0,12}",
            any::<[u8; 4]>(),
            any::<Option<[u8; 4]>>(),
            prop::option::of(key_exchange()),
            rival(any::<[u8; 4]>()),
            spis(),
            follow_up(),
        )
            .prop_map(|(name, spi_in, rekeys, ke, rival, deleted, follow_up)| {
                Purpose::Child(ChildOffer {
                    name,
                    spi_in,
                    rekeys,
                    ke,
                    rival,
                    deleted,
                    follow_up,
                })
            }),
        (
            any::<[u8; 8]>(),
            key_exchange(),
            rival(any::<[u8; 8]>()),
            follow_up()
        )
            .prop_map(|(spi, ke, rival, follow_up)| {
                Purpose::RekeyIke(IkeOffer {
                    spi,
                    ke,
                    rival,
                    follow_up,
                })
            }),
        any::<[u8; 4]>().prop_map(Purpose::SyncMessageIds),
        (any::<[u8; 16]>(), socket(), socket()).prop_map(|(cookie, local, remote)| {
            let path = Path::new(local, remote);
            Purpose::VerifyPath { cookie, path }
        }),
        (any::<[u8; 16]>(), socket(), socket()).prop_map(|(cookie, local, remote)| {
            let path = Path::new(local, remote);
            Purpose::UpdateAddresses { cookie, path }
        }),
        Just(Purpose::Redirect),
    ]
    .boxed()
}

fn transport() -> impl Strategy<Value = TransportState> {
    let addresses = prop::collection::vec(address(), 0..4);
    (any::<[bool; 5]>(), addresses).prop_map(|(flags, peer_addresses)| TransportState {
        fragments: flags[0],
        forced_encap: flags[1],
        mobike: flags[2],
        redirectable: flags[3],
        original_initiator: flags[4],
        peer_addresses,
    })
}

fn outstanding(connection: &str, slot: Slot) -> BoxedStrategy<Option<OutstandingRequest>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop::option::of((any::<u32>(), bytes, purpose(connection, slot)).prop_map(
        |(message_id, bytes, purpose)| OutstandingRequest {
            message_id,
            bytes: bytes.into(),
            purpose,
        },
    ))
    .boxed()
}

prop_compose! {
    fn record()(
        connection in "[a-z-]{1,20}",
        slot in any::<u8>().prop_map(Slot),
        proposal in proposal(),
    )(
        connection in Just(connection.clone()),
        slot in Just(slot),
        proposal in Just(proposal),
        keys in keys(proposal),
        children in children(connection.clone(), slot),
        follow_ups in follow_ups(connection.clone(), slot),
        spis in any::<[[u8; 8]; 2]>(),
        role in prop_oneof![Just(Role::Initiator), Just(Role::Responder)],
        ids in (identity(), identity()),
        path in (socket(), socket()),
        nat in any::<[bool; 2]>(),
        counters in any::<(u64, u32, u32, u64)>(),
        last_response in last_response(),
        outstanding in outstanding(&connection, slot),
        flags in any::<[bool; 3]>(),
        ids_before in any::<(Option<u32>, Option<[u8; 8]>)>(),
        end in (
            prop::option::of(prop_oneof![Just(Contact::Initial), Just(Contact::Further)]),
            any::<Option<u64>>(),
        ),
        lifetimes in any::<[Option<u64>; 2]>(),
        transport in transport(),
        wanted in prop::collection::btree_set("[a-z]{1,9}", 0..3),
        unknown in unknown(1000),
    ) -> IkeSaRecord {
        IkeSaRecord {
            local_spi: spis[0],
            remote_spi: spis[1],
            role,
            slot,
            connection,
            local_id: ids.0,
            remote_id: ids.1,
            path: Path::new(path.0, path.1),
            nat: NatState { local: nat[0], remote: nat[1] },
            proposal,
            keys: IkeKeys {
                d: SkD::from_secret(keys[0].clone()),
                ei: SkE::from_secret(keys[1].clone()),
                er: SkE::from_secret(keys[2].clone()),
                pi: SkP::from_secret(keys[3].clone()),
                pr: SkP::from_secret(keys[4].clone()),
            },
            next_iv: counters.0,
            next_request: counters.1,
            expected_request: counters.2,
            last_response,
            outstanding,
            replaced: flags[0],
            closing: flags[1],
            peer_syncs: flags[2],
            peer_synced: ids_before.0,
            transport,
            predecessor: ids_before.1,
            contact: end.0,
            closed: end.1.map(Duration::from_nanos),
            negotiated_in: lifetimes[1].map(|took| Duration::from_nanos(took / 7)),
            rekey_after: lifetimes[0].map(Duration::from_nanos),
            reauth_after: lifetimes[0].map(|after| Duration::from_nanos(after / 3)),
            expires_after: lifetimes[1].map(Duration::from_nanos),
            wanted: wanted.into_iter().collect(),
            age: Duration::from_nanos(counters.3),
            children,
            follow_ups,
            unknown,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_encoded_is_decoded(record in record()) {
        let octets = record.encode();
        prop_assert_eq!(IkeSaRecord::decode(octets.expose()).unwrap(), record);
    }

    /// Total: every cut is an error, every change is an error or another record.
    #[test]
    fn hostile_octets(
        record in record(),
        cut in any::<prop::sample::Index>(),
        change in (any::<prop::sample::Index>(), any::<u8>()),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let octets = record.encode();
        let whole = octets.expose();
        let cut = cut.index(whole.len());
        if let Ok(shorter) = IkeSaRecord::decode(&whole[..cut]) {
            // Only what stands at the end and may be missing can be missing.
            prop_assert!(
                shorter.unknown.len() < record.unknown.len()
                    || shorter.children.len() < record.children.len()
            );
        }
        let mut changed = whole.to_vec();
        changed[change.0.index(whole.len())] = change.1;
        let _ = IkeSaRecord::decode(&changed);
        let _ = IkeSaRecord::decode(&noise);
    }

    /// Export of an import is the record, apart from the connection's prefix of the IVs.
    #[test]
    fn an_imported_ike_sa_exports_its_record(record in record()) {
        let mut gateway = Gateway::new(config());
        // Ages that the clock of this member has room for, children with different SPIs that
        // have not expired.
        let mut record = record;
        record.closed = None;
        record.age = Duration::from_millis(300);
        record.negotiated_in = record.negotiated_in.map(|_| Duration::from_millis(40));
        record.rekey_after = record.rekey_after.map(|_| Duration::from_secs(10));
        record.expires_after = record.expires_after.map(|_| Duration::from_secs(20));
        let mut spis = std::collections::BTreeSet::new();
        record.children.retain(|child| spis.insert(child.sa.spi_in));
        for child in &mut record.children {
            child.sa.hard_lifetime_seconds %= 1 << 20;
            child.sa.hard_lifetime_seconds += 5000;
            child.age = Duration::from_secs(4321);
            child.rekey_after = child.rekey_after.map(|_| Duration::from_secs(4400));
        }
        for waiting in &mut record.follow_ups {
            waiting.left = Duration::from_secs(7);
        }
        gateway.endpoint.handle_command(
            gateway.now,
            gateway_ike::endpoint::Command::Import(Box::new(record.clone())),
        );
        prop_assert!(gateway.drain().is_empty() && gateway.log.is_empty());
        let exported: Vec<_> = gateway.endpoint.export(gateway.now).collect();
        prop_assert_eq!(exported, [record]);
    }
}

#[test]
fn other_versions_and_missing_values_are_named() {
    let mut gateway = Gateway::new(config());
    Initiator::new(95).connect(&mut gateway).unwrap();
    let (_, record) = gateway.last_record();
    let octets = record.encode();
    let mut other = octets.expose().to_vec();
    other[0] = 2;
    assert_eq!(IkeSaRecord::decode(&other), Err(RecordError::Version(2)));
    assert_eq!(IkeSaRecord::decode(&[1]), Err(RecordError::Missing("SPIs")));
    assert_eq!(IkeSaRecord::decode(&[]), Err(RecordError::Truncated));
    // The first value twice.
    let mut twice = octets.expose().to_vec();
    let first = twice[1..1 + 6 + 16].to_vec();
    twice.extend_from_slice(&first);
    assert_eq!(IkeSaRecord::decode(&twice), Err(RecordError::Duplicate(1)));
}

/// The budget of sync octets per SA pair: ≤ 1.5 KB.
#[test]
fn a_usual_record_is_small_and_does_not_print_keys() {
    let mut gateway = Gateway::new(config());
    let mut peer = Initiator::new(96);
    let child = peer.connect(&mut gateway).unwrap();
    let (_, record) = gateway.last_record();
    let len = record.encode().len();
    assert!(len <= 1536, "{len} octets");
    let text = format!("{record:?}");
    for key in [
        child.key_in.expose(),
        peer.keys.as_ref().unwrap().d.expose(),
    ] {
        assert!(!text.contains(&format!("{:?}", &key[..4]).replace(['[', ']'], "")));
    }
}
