//! What outlives the agent, and what a new one makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aya::maps::{HashMap as BpfHashMap, MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use gateway_common::abi::{
    ANY_MESSAGE_ID, Address, EspOutKey, EspOutValue, EspSaKey, IkeSaKey, NegotiationKey,
    NegotiationState, NegotiationValue, map,
};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;
use gateway_user::steering::{
    AttachMode, FenceHook, Steering, SteeringConfig, SteeringError, uninstall,
};

use crate::lab::{Lab, index, run, with_lab};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn map_ids(lab: &Lab) -> BTreeMap<String, u32> {
    let folder = lab.pins("maps");
    let id = |name: &String| MapInfo::from_pin(folder.join(name)).unwrap().id();
    names(&folder)
        .into_iter()
        .map(|name| (name.clone(), id(&name)))
        .collect()
}

/// Name → (link id, program id).
pub(crate) fn link_ids(lab: &Lab) -> BTreeMap<String, (u32, u32)> {
    let folder = lab.pins("links");
    let info = |name: &String| {
        let link = FdLink::from(PinnedLink::from_pin(folder.join(name)).unwrap());
        let info = link.info().unwrap();
        (info.id(), info.program_id())
    };
    names(&folder)
        .into_iter()
        .map(|name| (name.clone(), info(&name)))
        .collect()
}

/// Programs on an interface's tcx egress hook.
fn fences(interface: &str) -> usize {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Egress).unwrap();
    programs.len()
}

fn negotiation(number: u16, created_ns: u64) -> (NegotiationKey, NegotiationValue) {
    let [high, low] = number.to_be_bytes();
    let key = NegotiationKey {
        cookie: [1, 2, 3, 4, 5, 6, high, low],
        message_id: ANY_MESSAGE_ID,
        peer: Address::UNSPECIFIED,
    };
    let value = NegotiationValue {
        member: 2,
        slot: low,
        state: NegotiationState::HalfOpen as u8,
        reserved: [0; 5],
        created_ns,
        expires_ns: created_ns + 120_000_000_000,
    };
    (key, value)
}

#[test]
fn a_restart_takes_maps_and_links_over() {
    with_lab(|lab| {
        let first = Steering::start(&lab.config()).unwrap();
        let (key, value) = negotiation(1, 5);
        first.tables().put_negotiation(&key, &value).unwrap();
        first
            .tables()
            .put_ike_sa(&IkeSaKey { cookie: [9; 8] }, Slot(77))
            .unwrap();
        let owners = std::array::from_fn(|slot| MemberId::new((slot % 3) as u8 + 1));
        first.tables().set_slot_owners(&owners).unwrap();
        let (maps, links) = (map_ids(lab), link_ids(lab));
        assert_eq!(maps.len(), 15);
        assert_eq!(
            links.len(),
            9,
            "XDP on three interfaces, the fence on these and their other ends: {links:?}"
        );
        drop(first);
        assert_eq!(link_ids(lab), links, "nothing holds them but their pins");

        let second = Steering::start(&lab.config()).unwrap();
        assert_eq!(map_ids(lab), maps);
        for (name, (id, program)) in link_ids(lab) {
            let (old_id, old_program) = links[&name];
            assert_eq!(id, old_id, "{name} is the same link");
            assert_ne!(program, old_program, "{name} runs the new program");
        }
        let dump = second.tables().dump().unwrap();
        assert_eq!(dump.negotiations, [(key, value)]);
        assert_eq!(dump.ike_sas, [(IkeSaKey { cookie: [9; 8] }, Slot(77))]);
        assert_eq!(dump.slot_owners, owners);
        assert!(second.verify().unwrap().is_empty());
    });
}

#[test]
fn tables_read_back_what_was_written() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let tables = steering.tables();
        let esp = |spi: u32| EspSaKey {
            spi: spi.to_be_bytes(),
            vip: Address::from_v4([203, 0, 113, 10]),
        };
        for spi in 0..3000 {
            tables.put_esp_sa(&esp(spi), Slot(spi as u8)).unwrap();
        }
        let mut read = tables.dump().unwrap().esp_sas;
        read.sort_unstable();
        assert_eq!(read.len(), 3000);
        assert!(
            (0..3000)
                .zip(&read)
                .all(|(spi, entry)| *entry == (esp(spi), Slot(spi as u8)))
        );
        assert!(tables.remove_esp_sa(&esp(7)).unwrap());
        assert!(!tables.remove_esp_sa(&esp(7)).unwrap());

        let nets = ["10.2.0.0/16", "2001:db8:2::/48", "0.0.0.0/0"];
        for (slot, net) in (0..).zip(nets) {
            tables
                .put_remote_net(0, net.parse().unwrap(), Slot(slot))
                .unwrap();
        }
        tables
            .put_local_net(0, "10.2.3.0/24".parse().unwrap())
            .unwrap();
        let mut read = tables.dump().unwrap().remote_nets;
        read.sort_unstable();
        let mut wanted = vec![
            (0, "10.2.3.0/24".parse().unwrap(), None),
            (0, "0.0.0.0/0".parse().unwrap(), Some(Slot(2))),
            (0, "10.2.0.0/16".parse().unwrap(), Some(Slot(0))),
            (0, "2001:db8:2::/48".parse().unwrap(), Some(Slot(1))),
        ];
        wanted.sort_unstable();
        assert_eq!(read, wanted);
        assert!(
            tables
                .remove_remote_net(0, "10.2.0.0/16".parse().unwrap())
                .unwrap()
        );
        assert!(
            !tables
                .remove_remote_net(0, "10.2.0.0/16".parse().unwrap())
                .unwrap()
        );

        for number in 0..900u16 {
            let (key, value) = negotiation(number, number.into());
            tables.put_negotiation(&key, &value).unwrap();
        }
        let fill = tables.fill().unwrap();
        assert_eq!((fill.entries, fill.max_entries), (900, 1024));
        assert!(fill.reaches(80) && !fill.reaches(90));

        let vips = run(&format!(
            "bpftool map dump pinned {}",
            lab.pins("maps/VIP").display()
        ));
        assert_eq!(vips.matches("\"key\"").count(), 2, "{vips}");
        tables.set_vips(&[[203, 0, 113, 11].into()]).unwrap();
        let vips = run(&format!(
            "bpftool map dump pinned {}",
            lab.pins("maps/VIP").display()
        ));
        assert_eq!(vips.matches("\"key\"").count(), 1, "{vips}");
    });
}

#[test]
fn settings_and_sync_device_are_written_before_anything_is_attached() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let settings = steering.tables().settings().unwrap();
        assert_eq!(
            (settings.member, settings.enabled, settings.cluster),
            (1, 1, 7)
        );
        let used = settings.macs.iter().filter(|mac| **mac != [0; 8]).count();
        assert_eq!(used, 2, "the public and the inside interface: {settings:?}");
        let devices = aya::maps::DevMap::try_from(
            aya::maps::Map::from_map_data(
                MapData::from_pin(lab.pins("maps").join(map::SYNC_DEV)).unwrap(),
            )
            .unwrap(),
        )
        .unwrap();
        assert_eq!(devices.get(0, 0).unwrap().if_index, index("sync0"));

        steering.set_enabled(false).unwrap();
        let settings = steering.tables().settings().unwrap();
        assert_eq!((settings.member, settings.enabled), (1, 0));
        drop(steering);
        let mut config = lab.config();
        config.enabled = false;
        let steering = Steering::start(&config).unwrap();
        assert_eq!(steering.tables().settings().unwrap().enabled, 0);
    });
}

#[test]
fn a_table_of_another_size_keeps_its_youngest_entries() {
    with_lab(|lab| {
        let first = Steering::start(&lab.config()).unwrap();
        for number in 0..600u16 {
            let (key, value) = negotiation(number, number.into());
            first.tables().put_negotiation(&key, &value).unwrap();
        }
        let before = map_ids(lab);
        drop(first);

        let sized = |max_entries| SteeringConfig {
            max_entries,
            ..lab.config()
        };
        let larger = Steering::start(&sized(4096)).unwrap();
        let fill = larger.tables().fill().unwrap();
        assert_eq!((fill.entries, fill.max_entries), (600, 4096));
        let after = map_ids(lab);
        assert_eq!(after.len(), 15, "no table is left under another name");
        for (name, id) in &after {
            assert_eq!(before[name] == *id, name != map::NEGOTIATIONS, "{name}");
        }
        drop(larger);

        let smaller = Steering::start(&sized(256)).unwrap();
        let fill = smaller.tables().fill().unwrap();
        assert_eq!(fill.max_entries, 256);
        let kept = smaller.tables().dump().unwrap().negotiations;
        assert!(!kept.is_empty() && kept.len() <= 256);
        assert!(
            kept.iter().all(|(_, value)| value.created_ns >= 600 - 256),
            "the oldest went first"
        );
    });
}

#[test]
fn a_pinned_map_of_another_layout_is_refused() {
    with_lab(|lab| {
        fs::create_dir_all(lab.pins("maps")).unwrap();
        let path = lab.pins("maps").join(map::ESP_SA);
        let wrong = BpfHashMap::<MapData, u32, u64>::create(16, 0).unwrap();
        wrong.pin(&path).unwrap();
        let error = Steering::start(&lab.config()).unwrap_err();
        let SteeringError::Layout {
            field,
            found,
            wanted,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(
            (*field, found.as_str(), wanted.as_str()),
            ("its key size", "4", "20")
        );
        let text = error.to_string();
        assert!(
            text.contains("/maps/ESP_SA") && text.contains("rm -r"),
            "{text}"
        );
        assert!(
            !run("ip link show pub0").contains("xdp"),
            "nothing was attached"
        );

        fs::remove_file(&path).unwrap();
        let flags = BpfHashMap::<MapData, [u8; 20], u32>::create(131_072, 1).unwrap();
        flags.pin(&path).unwrap();
        let error = Steering::start(&lab.config()).unwrap_err();
        assert!(
            matches!(
                &error,
                SteeringError::Layout {
                    field: "its flags",
                    ..
                }
            ),
            "{error}"
        );

        fs::remove_file(&path).unwrap();
        let small = BpfHashMap::<MapData, [u8; 20], u32>::create(16, 0).unwrap();
        small.pin(&path).unwrap();
        let error = Steering::start(&lab.config()).unwrap_err();
        let wanted = "its number of entries";
        assert!(
            matches!(&error, SteeringError::Layout { field, .. } if *field == wanted),
            "{error}"
        );
    });
}

#[test]
fn interfaces_that_are_no_longer_configured_are_let_go() {
    with_lab(|lab| {
        drop(Steering::start(&lab.config()).unwrap());
        let mut config = lab.config();
        config.inside.clear();
        let steering = Steering::start(&config).unwrap();
        assert_eq!(link_ids(lab).len(), 8);
        assert!(!run("ip link show in0").contains("xdp"));
        assert_eq!(fences("in0"), 1, "the fence stands everywhere");
        assert_eq!(fences("pub0"), 1);
        drop(steering);

        config.attach = AttachMode::None;
        Steering::start(&config).unwrap();
        assert!(
            !run("ip link show pub0").contains("xdp"),
            "attach = none detaches"
        );
        assert_eq!(fences("in0p"), 0);
    });
}

/// Makes the pins those of the first release: no lease, and slots alone in `ESP_OUT`.
fn as_of_the_first_release(lab: &Lab) -> std::path::PathBuf {
    let root = lab.config().pin_root();
    let old = root.with_file_name("v1");
    assert_ne!(root, old);
    fs::rename(root, &old).unwrap();
    fs::remove_file(old.join("maps").join(map::LEASE)).unwrap();
    let path = old.join("maps").join(map::ESP_OUT);
    fs::remove_file(&path).unwrap();
    let slots_alone = BpfHashMap::<MapData, [u8; 20], u32>::create(131_072, 0).unwrap();
    slots_alone.pin(&path).unwrap();
    old
}

fn check_upgrade(lab: &Lab, hook: FenceHook) {
    let config = SteeringConfig {
        fence: Some(hook),
        ..lab.config()
    };
    drop(Steering::start(&config).unwrap());
    let before = link_ids(lab);
    let old_maps = map_ids(lab);
    let old = as_of_the_first_release(lab);

    let steering = Steering::start(&config).unwrap();
    assert!(!old.exists(), "the old pins are gone");
    let after = link_ids(lab);
    assert_eq!(after.len(), before.len());
    for (name, (id, program)) in after {
        let (old_id, old_program) = before[&name];
        assert_eq!(id, old_id, "{name} is the same link");
        assert_ne!(program, old_program, "{name} runs the new program");
    }
    let maps = map_ids(lab);
    assert_eq!(maps.len(), 15);
    assert!(maps.iter().all(|(name, id)| old_maps[name] != *id));
    assert!(steering.verify().unwrap().is_empty());
    let key = EspOutKey {
        spi: [1; 4],
        peer: Address::from_v4([198, 51, 100, 7]),
    };
    let tables = steering.tables();
    tables.put_esp_out(&key, Slot(4), 16_384).unwrap();
    assert!(tables.raise_ceiling(&key, 32_768).unwrap());
    assert!(tables.raise_ceiling(&key, 5).unwrap());
    let read = tables.dump().unwrap().esp_outs;
    assert_eq!(read, [(key, EspOutValue::new(4, 32_768))]);
}

#[test]
fn the_first_releases_links_are_updated_in_place_and_its_pins_go() {
    with_lab(|lab| check_upgrade(lab, FenceHook::Tcx));
    with_lab(|lab| {
        check_upgrade(lab, FenceHook::Clsact);
        let filters = run("tc filter show dev pub0 egress");
        assert_eq!(filters.matches("handle 0x1").count(), 1, "{filters}");
    });
}

#[test]
fn a_new_process_may_not_transmit_before_it_is_granted() {
    with_lab(|lab| {
        let first = Steering::start(&lab.config()).unwrap();
        let until = Instant::from_nanos(u64::MAX);
        first.fence_handle().set_lease(until).unwrap();
        assert_eq!(first.tables().dump().unwrap().lease, until);
        drop(first);
        let second = Steering::start(&lab.config()).unwrap();
        assert_eq!(second.tables().dump().unwrap().lease, Instant::default());
    });
}

/// Who may send changes within a millisecond, from any thread.
#[test]
fn slots_change_hands_at_once() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let fence = steering.fence_handle();
        let all = |id| [MemberId::new(id); Slot::COUNT];
        let thread = std::thread::spawn(move || {
            let took = (1..=20).map(|turn| {
                let start = std::time::Instant::now();
                fence.set_slot_owners(&all(turn % 2 + 1)).unwrap();
                start.elapsed()
            });
            took.min()
        });
        let best = thread.join().unwrap().unwrap();
        assert!(best < std::time::Duration::from_millis(1), "{best:?}");
        let owners = steering.tables().dump().unwrap().slot_owners;
        assert_eq!(owners, all(1));
    });
}

#[test]
fn uninstall_leaves_nothing() {
    with_lab(|lab| {
        drop(Steering::start(&lab.config()).unwrap());
        uninstall(&lab.config()).unwrap();
        for name in ["pub0", "sync0", "in0", "pub0p"] {
            assert!(!run(&format!("ip link show {name}")).contains("xdp"));
            assert_eq!(fences(name), 0);
        }
        assert!(!lab.bpffs().join("gateway").exists());
        uninstall(&lab.config()).unwrap();
    });
}

#[test]
fn an_interface_that_was_made_anew_is_attached_again() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        run("ip link del sync0");
        let findings = steering.verify().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(!findings[0].repaired && findings[0].interface == "sync0");

        run("ip link add sync0 type veth peer name sync0p");
        run("ip link set sync0 up");
        let findings = steering.verify().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].repaired, "{findings:?}");
        assert!(run("ip link show sync0").contains("xdp"));
        assert!(steering.verify().unwrap().is_empty());
        drop(steering);
        let steering = Steering::start(&lab.config()).unwrap();
        assert_eq!(link_ids(lab).len(), 9, "the old interface's pins are gone");
        assert!(steering.verify().unwrap().is_empty());
    });
}
