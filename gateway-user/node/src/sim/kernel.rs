//! A member's kernel: XFRM with its counters, the maps, and the fence.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_cluster::slot_map::SlotMap;
use gateway_cluster::table::TableChange;
use gateway_common::abi::{
    EspOutKey, EspOutValue, EspSaKey, IkeSaKey, NegotiationKey, NegotiationValue, RemoteNet,
    Settings, SlotValue,
};
use gateway_common::member::MemberId;
use gateway_common::{slot::Slot, time::Instant};
use gateway_ike::output::{ChildId, ChildSa, KernelRequest, KernelResult};

use super::esp::{Inbound, KeyId, Packet, key_id};
use crate::Node;
use crate::effect::{KernelEvent, KernelOp, Standing};

/// An event comes after so many packets.
const EVENT_EVERY: u64 = 1024;

/// A CHILD_SA in the kernel: two SAs and policies.
#[derive(Clone, Debug)]
pub(super) struct Sa {
    pub(super) child: ChildSa,
    key_out: KeyId,
    pub(super) oseq: u64,
    reported_out: u64,
    pub(super) inbound: Inbound,
    reported_in: u64,
    /// Policies of the last one installed win.
    order: u64,
}

/// Survives the agent, not the host.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) member: MemberId,
    pub(super) sas: BTreeMap<ChildId, Sa>,
    /// Writes to SAs and to the tables of established ones so far.
    pub(super) sa_writes: u64,
    installed: u64,
    /// Children that were promoted.
    pub(super) promoted: u64,
    pub(super) slot_owner: SlotMap,
    /// On the host's clock.
    pub(super) lease: Instant,
    pub(super) alive: Vec<MemberId>,
    pub(super) negotiations: BTreeMap<NegotiationKey, NegotiationValue>,
    pub(super) ike_sa: BTreeMap<IkeSaKey, SlotValue>,
    pub(super) esp_sa: BTreeMap<EspSaKey, SlotValue>,
    pub(super) esp_out: BTreeMap<EspOutKey, EspOutValue>,
    pub(super) remote_net: BTreeMap<(u32, RemoteNet), SlotValue>,
    /// The host's clock at the last look.
    pub(super) now: Instant,
    pub(super) settings: Settings,
    pub(super) drops: BTreeMap<&'static str, u64>,
    /// Writes to maps and SAs so far.
    pub(super) operations: u64,
}

impl Kernel {
    pub(super) fn new(member: MemberId) -> Self {
        Self {
            member,
            sas: BTreeMap::new(),
            sa_writes: 0,
            installed: 0,
            promoted: 0,
            slot_owner: SlotMap::UNSET,
            lease: Instant::default(),
            alive: Vec::new(),
            negotiations: BTreeMap::new(),
            ike_sa: BTreeMap::new(),
            esp_sa: BTreeMap::new(),
            esp_out: BTreeMap::new(),
            remote_net: BTreeMap::new(),
            now: Instant::default(),
            settings: Settings {
                member: u32::from(member.get()),
                enabled: 1,
                ..Settings::default()
            },
            drops: BTreeMap::new(),
            operations: 0,
        }
    }

    /// What a starting agent does with what an earlier one left: SAs go, maps are emptied.
    pub(super) fn reconcile(&mut self) {
        *self = Self {
            drops: std::mem::take(&mut self.drops),
            operations: self.operations,
            sa_writes: self.sa_writes,
            ..Self::new(self.member)
        };
    }

    /// The host's clock, for every look-up.
    pub(super) fn set_clock(&mut self, now: Instant) {
        self.now = now;
    }

    /// Whether the fence lets pass what `slot` marks.
    pub(super) fn may_send(&self, slot: Slot) -> bool {
        self.slot_owner.owner(slot) == Some(self.member) && self.now < self.lease
    }

    pub(super) fn perform(&mut self, op: KernelOp) -> Option<KernelResult> {
        self.operations += 1;
        // Numbers may have waited for any message to be published with.
        self.sa_writes += u64::from(!matches!(
            op,
            KernelOp::Advance { .. } | KernelOp::MoveCopy { .. }
        ));
        match op {
            KernelOp::Own { request, start } => match request {
                KernelRequest::Install { child, .. } => {
                    let id = child.id();
                    self.install(*child, start, Inbound::default());
                    return Some(KernelResult::Installed(id));
                }
                KernelRequest::Remove { child } => {
                    self.sas.remove(&child);
                }
                KernelRequest::Promote { child } => {
                    self.installed += 1;
                    self.promoted += 1;
                    if let Some(sa) = self.sas.get_mut(&child) {
                        sa.order = self.installed;
                    }
                }
                KernelRequest::Update { child } => {
                    if let Some(sa) = self.sas.get_mut(&child.id()) {
                        sa.child = *child;
                    }
                }
            },
            KernelOp::Copy { child, standing } => self.copy(*child, standing),
            KernelOp::MoveCopy {
                child,
                slot,
                standing,
                ..
            } => {
                if self.slot_owner.owner(slot) != Some(self.member)
                    && let Some(sa) = self.sas.get_mut(&child)
                {
                    sa.advance(standing);
                }
            }
            KernelOp::Advance { child, to, .. } => {
                if let Some(sa) = self.sas.get_mut(&child) {
                    sa.oseq = sa.oseq.max(to);
                }
            }
            KernelOp::RemoveCopy(child) => {
                self.sas.remove(&child);
            }
        }
        None
    }

    fn install(&mut self, child: ChildSa, oseq: u64, inbound: Inbound) {
        self.installed += 1;
        let sa = Sa {
            key_out: key_id(child.key_out.expose()),
            reported_out: oseq,
            reported_in: inbound.top(),
            oseq,
            inbound,
            order: self.installed,
            child,
        };
        self.sas.insert(sa.child.id(), sa);
    }

    fn copy(&mut self, child: ChildSa, standing: Standing) {
        match self.sas.get_mut(&child.id()) {
            // Adjusting changes addresses and selectors; counters only go forwards, and only
            // while another member owns the slot.
            Some(sa) => {
                let owned = self.slot_owner.owner(child.slot) == Some(self.member);
                sa.child = child;
                if !owned {
                    sa.advance(standing);
                }
            }
            None => {
                let inbound = Inbound::at(standing.sequence_in);
                self.install(child, standing.sequence_out, inbound);
            }
        }
    }

    pub(super) fn write(&mut self, change: &TableChange) {
        self.operations += 1;
        self.sa_writes += u64::from(!matches!(
            change,
            // A ceiling may have waited for any message to be published with.
            TableChange::PutEspOut { .. }
                | TableChange::PutNegotiation { .. }
                | TableChange::RemoveNegotiation(_)
        ));
        match *change {
            TableChange::PutNegotiation { key, value } => {
                self.negotiations.insert(key, value);
            }
            TableChange::RemoveNegotiation(key) => {
                self.negotiations.remove(&key);
            }
            TableChange::PutIkeSa { key, value } => {
                self.ike_sa.insert(key, value);
            }
            TableChange::RemoveIkeSa(key) => {
                self.ike_sa.remove(&key);
            }
            TableChange::PutEspSa { key, value } => {
                self.esp_sa.insert(key, value);
            }
            TableChange::RemoveEspSa(key) => {
                self.esp_sa.remove(&key);
            }
            TableChange::PutEspOut { key, slot, ceiling } => {
                let value = EspOutValue::new(slot.0, ceiling);
                self.esp_out.insert(key, value);
            }
            TableChange::RemoveEspOut(key) => {
                self.esp_out.remove(&key);
            }
            TableChange::PutRemoteNet {
                prefix_len,
                net,
                value,
            } => {
                self.remote_net.insert((prefix_len, net), value);
            }
            TableChange::RemoveRemoteNet { prefix_len, net } => {
                self.remote_net.remove(&(prefix_len, net));
            }
        }
    }

    /// Where the maps are not what the core's tables say.
    pub(super) fn differs(&self, node: &Node) -> Option<String> {
        let mut entries = 0;
        for change in node.cluster().ownership().tables() {
            entries += 1;
            let there = match change {
                TableChange::PutNegotiation { key, value } => {
                    self.negotiations.get(&key) == Some(&value)
                }
                TableChange::PutIkeSa { key, value } => self.ike_sa.get(&key) == Some(&value),
                TableChange::PutEspSa { key, value } => self.esp_sa.get(&key) == Some(&value),
                TableChange::PutEspOut { key, slot, ceiling } => {
                    self.esp_out.get(&key) == Some(&EspOutValue::new(slot.0, ceiling))
                }
                TableChange::PutRemoteNet {
                    prefix_len,
                    net,
                    value,
                } => self.remote_net.get(&(prefix_len, net)) == Some(&value),
                _ => true,
            };
            if !there {
                return Some(format!("{change:?} is not there"));
            }
        }
        let written = self.negotiations.len()
            + self.ike_sa.len()
            + self.esp_sa.len()
            + self.esp_out.len()
            + self.remote_net.len();
        (written != entries).then(|| format!("{written} entries instead of {entries}"))
    }

    /// The member that `gateway_ingress` sends an ESP packet to; `None`: it stays here.
    pub(super) fn steer_esp(&self, key: &EspSaKey) -> Option<MemberId> {
        let value = self.esp_sa.get(key)?;
        self.elsewhere(Slot(value.slot))
    }

    /// The member that `gateway_inside` sends cleartext for `net` to; `None`: it stays here.
    pub(super) fn steer_clear(&self, net: &(u32, RemoteNet)) -> Option<MemberId> {
        let value = self.remote_net.get(net)?;
        self.elsewhere(Slot(value.slot))
    }

    /// The owner of `slot`, if it is another member that frames can be forwarded to.
    pub(super) fn elsewhere(&self, slot: Slot) -> Option<MemberId> {
        let owner = self.slot_owner.owner(slot)?;
        (owner != self.member && self.alive.contains(&owner)).then_some(owner)
    }

    /// Encrypts `count` packets to `peer` (policies choose the SA) and hands them to the fence.
    /// What passes is on the wire.
    pub(super) fn encrypt(&mut self, peer: IpAddr, count: u64) -> Option<Packet> {
        let sa = self
            .sas
            .values_mut()
            .filter(|sa| sa.child.remote == peer)
            .max_by_key(|sa| sa.order);
        let Some(sa) = sa else {
            // The block policy.
            *self.drops.entry("no SA").or_default() += 1;
            return None;
        };
        let first = sa.oseq + 1;
        sa.oseq += count;
        let packet = Packet {
            spi: sa.child.spi_out,
            key: sa.key_out,
            first,
            last: sa.oseq,
            slot: sa.child.slot,
        };
        match self.fence_all(peer, packet) {
            Ok(packet) => Some(packet),
            Err(reason) => {
                *self.drops.entry(reason.as_str()).or_default() += 1;
                None
            }
        }
    }

    /// Decrypts what the peer sent, if an SA fits and the window allows it.
    pub(super) fn decrypt(&mut self, vip: IpAddr, packet: &Packet) -> bool {
        let id = ChildId {
            spi_in: packet.spi,
            local: vip,
        };
        let Some(sa) = self.sas.get_mut(&id) else {
            *self.drops.entry("no inbound SA").or_default() += 1;
            return false;
        };
        key_id(sa.child.key_in.expose()) == packet.key && sa.inbound.accept(packet)
    }

    /// XFRM replay events: by packet count.
    pub(super) fn events(&mut self) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        for (id, sa) in &mut self.sas {
            if sa.oseq >= sa.reported_out + EVENT_EVERY {
                sa.reported_out = sa.oseq;
                events.push(KernelEvent::SentUpTo {
                    child: *id,
                    sequence: sa.oseq,
                });
            }
            if sa.inbound.top() >= sa.reported_in + EVENT_EVERY {
                sa.reported_in = sa.inbound.top();
                events.push(KernelEvent::ReceivedUpTo {
                    child: *id,
                    sequence: sa.inbound.top(),
                });
            }
        }
        events
    }
}

impl Sa {
    /// NEWAE as the agent gates it: forwards only.
    fn advance(&mut self, standing: Standing) {
        if standing.sequence_out > self.oseq {
            self.oseq = standing.sequence_out;
            self.reported_out = self.oseq;
        }
        if standing.sequence_in > self.inbound.top() {
            self.inbound = Inbound::at(standing.sequence_in);
            self.reported_in = standing.sequence_in;
        }
    }
}
