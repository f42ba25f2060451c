//! The other members' sync MACs: read from the kernel's neighbour table, asked for where missing.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};

use gateway_common::abi::{MARKED_MAC_PREFIX, MEMBER_FORWARDABLE, MEMBER_KNOWN, MemberValue, size};
use gateway_common::member::MemberId;

use super::config::{MemberLink, SteeringConfig};
use super::tables::{TableError, Tables};
use crate::rtnl::Neighbour;

/// The discard service: nothing answers, but the kernel has to resolve the address to send.
const DISCARD_PORT: u16 = 9;

/// What is known of the members, and what was last written to `MEMBER`.
#[derive(Debug)]
pub(super) struct Members {
    cluster: u8,
    local: MemberId,
    links: Vec<MemberLink>,
    live: HashSet<MemberId>,
    macs: HashMap<MemberId, [u8; 6]>,
    written: HashMap<MemberId, MemberValue>,
}

impl Members {
    /// Starts from what an earlier agent left in `MEMBER`, so that a restart does not stop
    /// forwarding, and forgets the members that are no longer configured.
    pub(super) fn adopt(config: &SteeringConfig, tables: &dyn Tables) -> Result<Self, TableError> {
        let mut members = Self {
            cluster: config.cluster,
            local: config.local,
            links: config.members.clone(),
            live: HashSet::new(),
            macs: HashMap::new(),
            written: HashMap::new(),
        };
        for id in (1..size::MEMBERS as u8).filter_map(MemberId::new) {
            let value = tables.member(id)?;
            members.written.insert(id, value);
            if members.is_other(id) {
                if value.flags & MEMBER_FORWARDABLE != 0 {
                    members.live.insert(id);
                }
                if value.mac != [0; 6] {
                    members.macs.insert(id, value.mac);
                }
            }
        }
        members.write(tables)?;
        Ok(members)
    }

    fn is_other(&self, id: MemberId) -> bool {
        id != self.local && self.links.iter().any(|link| link.id == id)
    }

    /// Sets which members are alive; the others are not forwarded to.
    pub(super) fn set_live(
        &mut self,
        live: &[MemberId],
        tables: &dyn Tables,
    ) -> Result<(), TableError> {
        self.live = live.iter().copied().collect();
        self.write(tables)
    }

    /// Sets whether one member is alive.
    pub(super) fn set_alive(
        &mut self,
        member: MemberId,
        alive: bool,
        tables: &dyn Tables,
    ) -> Result<(), TableError> {
        if alive {
            self.live.insert(member);
        } else {
            self.live.remove(&member);
        }
        self.write(tables)
    }

    /// Takes over what the neighbour table says. A known MAC is kept while the table has none: a
    /// resolution that fails says less about a member than its heartbeats do.
    /// Answers the members whose MAC is unknown.
    pub(super) fn learn(
        &mut self,
        neighbours: &[Neighbour],
        tables: &dyn Tables,
    ) -> Result<Vec<MemberLink>, TableError> {
        for link in &self.links {
            let found = neighbours
                .iter()
                .find(|neighbour| neighbour.address == link.sync_address);
            if let Some(neighbour) = found
                && link.id != self.local
                && self.macs.insert(link.id, neighbour.mac) != Some(neighbour.mac)
            {
                tracing::info!(
                    member = %link.id,
                    mac = %Mac(neighbour.mac),
                    "sync address resolved"
                );
            }
        }
        self.write(tables)?;
        let missing = |link: &&MemberLink| {
            link.id != self.local
                && !neighbours
                    .iter()
                    .any(|neighbour| neighbour.address == link.sync_address)
        };
        Ok(self.links.iter().filter(missing).copied().collect())
    }

    /// Whether the MAC of `id` has ever been resolved.
    pub(super) fn is_resolved(&self, id: MemberId) -> bool {
        self.macs.contains_key(&id)
    }

    fn value(&self, id: MemberId) -> MemberValue {
        if !self.is_other(id) {
            // Our own marked MAC on a received frame means a loop: it must not be "known".
            return MemberValue::default();
        }
        let [a, b, c, d] = MARKED_MAC_PREFIX;
        let mac = self.macs.get(&id).copied();
        let forwardable = mac.is_some() && self.live.contains(&id);
        MemberValue {
            mac: mac.unwrap_or_default(),
            marked_mac: [a, b, c, d, self.cluster, self.local.get()],
            device: 0,
            flags: MEMBER_KNOWN | if forwardable { MEMBER_FORWARDABLE } else { 0 },
        }
    }

    fn write(&mut self, tables: &dyn Tables) -> Result<(), TableError> {
        for id in (1..size::MEMBERS as u8).filter_map(MemberId::new) {
            let value = self.value(id);
            if self.written.get(&id) != Some(&value) {
                tables.set_member(id, &value)?;
                self.written.insert(id, value);
            }
        }
        Ok(())
    }
}

/// Makes the kernel resolve `address` on the sync interface, by sending it a datagram that
/// nobody reads. Failure is no error: the neighbour table will say.
pub(super) fn solicit(address: IpAddr, interface: &str, index: u32) {
    let (bind, target): (SocketAddr, SocketAddr) = match address {
        IpAddr::V4(v4) => (([0; 4], 0).into(), (v4, DISCARD_PORT).into()),
        IpAddr::V6(v6) => {
            let scope = if v6.is_unicast_link_local() { index } else { 0 };
            let target = SocketAddrV6::new(v6, DISCARD_PORT, 0, scope);
            (([0u16; 8], 0).into(), target.into())
        }
    };
    let sent = UdpSocket::bind(bind).and_then(|socket| {
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.send_to(&[0], &target.into())
    });
    if let Err(error) = sent {
        tracing::debug!(%address, %error, "could not ask for a member's MAC");
    }
}

struct Mac([u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryTables, test_config};
    use super::*;

    fn id(raw: u8) -> MemberId {
        MemberId::new(raw).unwrap()
    }

    fn neighbour(address: &str, last: u8) -> Neighbour {
        Neighbour {
            address: address.parse().unwrap(),
            mac: [2, 0, 0, 0, 0, last],
        }
    }

    #[test]
    fn only_live_and_resolved_members_are_forwarded_to() {
        let tables = MemoryTables::new(16);
        let mut members = Members::adopt(&test_config(), &tables).unwrap();
        let flags = |raw| tables.member(id(raw)).unwrap().flags;
        assert_eq!((flags(1), flags(2), flags(3)), (0, 1, 1), "member 1 is us");

        members.set_live(&[id(1), id(2), id(3)], &tables).unwrap();
        assert_eq!((flags(1), flags(2), flags(3)), (0, 1, 1), "no MAC yet");

        let missing = members
            .learn(&[neighbour("10.99.0.2", 2)], &tables)
            .unwrap();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].id, id(3));
        assert_eq!((flags(2), flags(3)), (3, 1));
        let value = tables.member(id(2)).unwrap();
        assert_eq!(value.mac, [2, 0, 0, 0, 0, 2]);
        assert_eq!(value.marked_mac, [0x02, 0x47, 0x57, 0x46, 7, 1]);

        members.set_live(&[id(1)], &tables).unwrap();
        assert_eq!(flags(2), 1);
    }

    #[test]
    fn a_changed_mac_is_written_and_a_vanished_one_is_kept() {
        let tables = MemoryTables::new(16);
        let mut members = Members::adopt(&test_config(), &tables).unwrap();
        members.set_live(&[id(2)], &tables).unwrap();
        for (last, table) in [(2, true), (9, true), (9, false)] {
            let seen: Vec<_> = table
                .then(|| neighbour("10.99.0.2", last))
                .into_iter()
                .collect();
            members.learn(&seen, &tables).unwrap();
            let value = tables.member(id(2)).unwrap();
            assert_eq!((value.mac[5], value.flags), (last, 3));
        }
    }

    #[test]
    fn a_restart_goes_on_with_what_the_map_holds() {
        let tables = MemoryTables::new(16);
        let mut first = Members::adopt(&test_config(), &tables).unwrap();
        first.set_live(&[id(2)], &tables).unwrap();
        first.learn(&[neighbour("10.99.0.2", 2)], &tables).unwrap();
        let before = tables.member(id(2)).unwrap();
        drop(first);
        Members::adopt(&test_config(), &tables).unwrap();
        assert_eq!(tables.member(id(2)).unwrap(), before);

        let mut smaller = test_config();
        smaller.members.retain(|link| link.id != id(2));
        Members::adopt(&smaller, &tables).unwrap();
        assert_eq!(tables.member(id(2)).unwrap(), MemberValue::default());
    }
}
