//! Programs loaded, tables filled.

use anyhow::{Context, Result};
use aya::maps::{Array, DevMap, HashMap, MapData, PerCpuArray};
use aya::programs::{Program, SchedClassifier, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use gateway_common::abi::{
    ANY_MESSAGE_ID, Address, Counter, EspOutKey, EspOutValue, EspSaKey, FewVips,
    MEMBER_FORWARDABLE, MEMBER_KNOWN, MemberValue, NegotiationKey, NegotiationState,
    NegotiationValue, Settings, SlotValue, map, program,
};
use gateway_common::slot::Slot;
use gateway_user::steering::{BENCH_OBJECT, OBJECT};

use super::corner::Corner;
use super::frames::{self, MESSAGE_ID, OUR_MAC, ROUTER_MAC, Random, VIP};

/// Random keys per table.
pub(super) const KEYS: usize = 65_536;
/// Room for all keys without an eviction, whatever the kernel's LRU spares for each CPU.
const TABLE: u32 = 4 * KEYS as u32;
/// This member.
const LOCAL: u32 = 1;
/// The member that owns every slot but one.
const OTHER: u8 = 2;
/// The slot of this member, for the fence.
pub(super) const LOCAL_SLOT: u8 = 0;

/// Everything that is run.
pub(super) struct Programs {
    gateway: Ebpf,
    bench: Ebpf,
    /// Keys that are in the tables.
    pub(super) known: Vec<u64>,
    /// Keys that are in none.
    pub(super) unknown: Vec<u64>,
    stats: PerCpuArray<MapData, Counter>,
    sunk: PerCpuArray<MapData, u64>,
    negotiations: HashMap<MapData, NegotiationKey, NegotiationValue>,
}

impl Programs {
    /// Loads both objects, fills the tables, and attaches the sink to the wire's far end.
    pub(super) fn load(corner: &Corner) -> Result<Self> {
        let mut gateway = EbpfLoader::new()
            .map_max_entries(map::NEGOTIATIONS, TABLE)
            .load(OBJECT)
            .context("the gateway's object")?;
        let mut bench = Ebpf::load(BENCH_OBJECT).context("the bench's object")?;
        load_all(&mut gateway)?;
        load_all(&mut bench)?;
        let mut lookup: HashMap<_, [u8; 20], u32> =
            HashMap::try_from(take(&mut bench, "BENCH_HASH")?)?;
        for key in 0..KEYS as u32 {
            let mut bytes = [0; 20];
            bytes[..4].copy_from_slice(&key.to_ne_bytes());
            lookup.insert(bytes, 1, 0)?;
        }
        let sink: &mut Xdp = bench
            .program_mut("bench_sink")
            .context("bench_sink")?
            .try_into()?;
        sink.attach(corner.far_end, XdpMode::Driver)
            .context("a veth takes native XDP")?;

        // Distinct in their low halves, so that known and unknown SPIs do not meet.
        let mut keys = Random(0x6761_7465_7761_7901).distinct(2 * KEYS);
        let unknown = keys.split_off(KEYS);
        write_settings(&mut gateway)?;
        write_devices(&mut gateway, &mut bench, corner)?;
        write_esp(&mut gateway, &keys)?;
        let negotiations = HashMap::try_from(take(&mut gateway, map::NEGOTIATIONS)?)?;
        let stats = PerCpuArray::try_from(take(&mut gateway, map::STATS)?)?;
        let sunk = PerCpuArray::try_from(take(&mut bench, "BENCH_SUNK")?)?;
        Ok(Self {
            gateway,
            bench,
            known: keys,
            unknown,
            stats,
            sunk,
            negotiations,
        })
    }

    /// An XDP program of either object.
    pub(super) fn xdp(&self, name: &str) -> Result<&Xdp> {
        Ok(self.program(name)?.try_into()?)
    }

    /// A tc program of either object.
    pub(super) fn tc(&self, name: &str) -> Result<&SchedClassifier> {
        Ok(self.program(name)?.try_into()?)
    }

    fn program(&self, name: &str) -> Result<&Program> {
        self.gateway
            .program(name)
            .or_else(|| self.bench.program(name))
            .with_context(|| format!("no program {name}"))
    }

    /// The gateway's counters, summed over the CPUs.
    pub(super) fn stats(&self) -> Result<Vec<u64>> {
        (0..self.stats.len())
            .map(|index| {
                let values = self.stats.get(&index, 0)?;
                Ok(values.iter().map(|counter| counter.packets).sum())
            })
            .collect()
    }

    /// Frames that reached the far end.
    pub(super) fn sunk(&self) -> Result<u64> {
        Ok(self.sunk.get(&0, 0)?.iter().sum())
    }

    /// Makes the negotiations those of the known keys, for this message id or any.
    pub(super) fn fill_negotiations(&mut self, exact: bool) -> Result<()> {
        for id in [MESSAGE_ID, ANY_MESSAGE_ID] {
            for key in &self.known {
                let wanted = exact == (id == MESSAGE_ID);
                let key = negotiation_key(*key, id);
                if wanted {
                    self.negotiations.insert(key, negotiation_value(), 0)?;
                } else if let Err(error) = self.negotiations.remove(&key) {
                    ignore_absent(error)?;
                }
            }
        }
        Ok(())
    }
}

fn ignore_absent(error: aya::maps::MapError) -> Result<()> {
    match error {
        aya::maps::MapError::SyscallError(error)
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        aya::maps::MapError::KeyNotFound | aya::maps::MapError::ElementNotFound => Ok(()),
        other => Err(other.into()),
    }
}

fn load_all(object: &mut Ebpf) -> Result<()> {
    for (name, program) in object.programs_mut() {
        match program {
            Program::Xdp(xdp) => xdp.load(),
            Program::SchedClassifier(classifier) => classifier.load(),
            _ => continue,
        }
        .with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn take(object: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    object
        .take_map(name)
        .with_context(|| format!("no map {name}"))
}

fn write_settings(gateway: &mut Ebpf) -> Result<()> {
    let mut settings = Settings {
        member: LOCAL,
        enabled: 1,
        cluster: 1,
        live_members: 2,
        ..Settings::default()
    };
    settings.macs[0][..6].copy_from_slice(&OUR_MAC);
    Array::try_from(take(gateway, map::SETTINGS)?)?.set(0, settings, 0)?;

    let mut owners: Array<_, u32> = Array::try_from(take(gateway, map::SLOT_OWNER)?)?;
    for slot in 0..Slot::COUNT as u32 {
        let owner = if slot == u32::from(LOCAL_SLOT) {
            LOCAL
        } else {
            u32::from(OTHER)
        };
        owners.set(slot, owner, 0)?;
    }
    Array::try_from(take(gateway, map::LEASE)?)?.set(0, u64::MAX, 0)?;
    let mut live: Array<_, u32> = Array::try_from(take(gateway, map::LIVE)?)?;
    live.set(0, LOCAL, 0)?;
    live.set(1, u32::from(OTHER), 0)?;

    let mut members: Array<_, MemberValue> = Array::try_from(take(gateway, map::MEMBER)?)?;
    let other = MemberValue {
        mac: OUR_MAC,
        marked_mac: ROUTER_MAC,
        device: 0,
        flags: MEMBER_KNOWN | MEMBER_FORWARDABLE,
    };
    members.set(u32::from(OTHER), other, 0)?;

    let mut vips: HashMap<_, Address, u32> = HashMap::try_from(take(gateway, map::VIP)?)?;
    vips.insert(Address::from(VIP), 1, 0)?;
    let few = FewVips::new(&[Address::from(VIP)]);
    Array::try_from(take(gateway, map::VIP_FEW)?)?.set(0, few, 0)?;
    Ok(())
}

fn write_devices(gateway: &mut Ebpf, bench: &mut Ebpf, corner: &Corner) -> Result<()> {
    for map in [take(gateway, map::SYNC_DEV)?, take(bench, "BENCH_DEV")?] {
        DevMap::try_from(map)?.set(0, corner.wire, None, 0)?;
    }
    Ok(())
}

/// A slot of the other member's.
const FOREIGN_SLOT: SlotValue = SlotValue::new(LOCAL_SLOT + 1);

fn write_esp(gateway: &mut Ebpf, keys: &[u64]) -> Result<()> {
    let mut sas: HashMap<_, EspSaKey, SlotValue> = HashMap::try_from(take(gateway, map::ESP_SA)?)?;
    for key in keys {
        let sa = EspSaKey {
            spi: frames::spi(*key),
            vip: Address::from(VIP),
        };
        sas.insert(sa, FOREIGN_SLOT, 0)?;
    }
    let mut sas: HashMap<_, EspOutKey, EspOutValue> =
        HashMap::try_from(take(gateway, map::ESP_OUT)?)?;
    for key in keys {
        let sa = EspOutKey {
            spi: frames::spi(*key),
            peer: Address::from(frames::PEER),
        };
        sas.insert(sa, EspOutValue::new(LOCAL_SLOT, 1), 0)?;
    }
    Ok(())
}

fn negotiation_key(key: u64, message_id: [u8; 4]) -> NegotiationKey {
    NegotiationKey {
        cookie: key.to_be_bytes(),
        message_id,
        peer: Address::UNSPECIFIED,
    }
}

fn negotiation_value() -> NegotiationValue {
    NegotiationValue {
        member: OTHER,
        slot: FOREIGN_SLOT.slot,
        state: NegotiationState::HalfOpen as u8,
        reserved: [0; 5],
        created_ns: 0,
        expires_ns: u64::MAX,
    }
}

/// Names of the gateway's programs that are measured.
pub(super) const INGRESS: &str = program::INGRESS;
/// The fence.
pub(super) const EGRESS: &str = program::EGRESS;
