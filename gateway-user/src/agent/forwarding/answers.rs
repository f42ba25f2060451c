//! What is known of cookies and keys.

use gateway_common::abi::{ANY_MESSAGE_ID, Address, MEMBER_FORWARDABLE, NegotiationKey};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_node::What;

use super::{conflict, map_key, not_found, pinning, precondition, table};
use crate::agent::Agent;
use crate::agent::pages::{cookie, hex};
use crate::api::model::{
    CookieInfo, CookieQuery, EntryKey, Found, InboundSync, Initiated, Initiation, MemberSync,
    MessageId, OutboundSync, Ownership, Refusal, ReleasedCookie, ReservedCookie, SaSync, Target,
    Verified,
};
use crate::clock;

impl Agent {
    pub(super) fn search_table(&self, wish: &EntryKey) -> Result<Found, Refusal> {
        let key = map_key(&wish.cookie, wish.message_id, wish.peer)?;
        let any = NegotiationKey {
            message_id: ANY_MESSAGE_ID,
            ..key
        };
        let shown = |key: &NegotiationKey| -> Result<_, Refusal> {
            Ok(self.look(key)?.map(|value| self.entry(key, &value)))
        };
        let (exact, wildcard) = (shown(&key)?, shown(&any)?);
        let established = self.established(&key);
        Ok(Found {
            found: exact.is_some() || wildcard.is_some() || established.is_some(),
            exact,
            wildcard,
            established_slot: established.map(|slot| slot.0),
        })
    }

    pub(super) fn verify_table(&self, wish: &EntryKey) -> Result<Verified, Refusal> {
        let found = self.search_table(wish)?;
        Ok(Verified {
            no_existing_entry: !found.found,
            entry: found.exact.or(found.wildcard),
            established_slot: found.established_slot,
        })
    }

    pub(super) fn check_ownership(&self, wish: &EntryKey) -> Result<Ownership, Refusal> {
        let key = map_key(&wish.cookie, wish.message_id, wish.peer)?;
        if let Some(slot) = self.established(&key) {
            let owner = self.node.view().slots.owner(slot);
            return self.ownership(owner, slot, "IKE_SA");
        }
        let any = NegotiationKey {
            message_id: ANY_MESSAGE_ID,
            ..key
        };
        let value = match self.look(&key)? {
            Some(value) => Some(value),
            None => self.look(&any)?,
        };
        let value = value.ok_or_else(|| {
            not_found("no member manages this negotiation: the decision function would choose one")
        })?;
        let member = MemberId::new(value.member);
        self.ownership(member, Slot(value.slot), "SEP_my_IKE_packet")
    }

    fn ownership(
        &self,
        member: Option<MemberId>,
        slot: Slot,
        via: &str,
    ) -> Result<Ownership, Refusal> {
        let local = member == Some(self.config.cluster.local);
        let alive = match member {
            Some(_) if local => true,
            Some(member) => {
                let value = self.steering.tables().member(member).map_err(table)?;
                value.flags & MEMBER_FORWARDABLE != 0
            }
            None => false,
        };
        Ok(Ownership {
            cluster_member_ip: member.and_then(|member| self.sync_address(member)),
            member_id: member.map_or(0, MemberId::get),
            local,
            alive,
            slot: slot.0,
            via: via.into(),
        })
    }

    pub(super) fn cookie_info(&mut self, wish: &CookieQuery) -> Result<CookieInfo, Refusal> {
        let spi = cookie(&wish.cookie)?;
        let now = clock::now();
        if let Some((owner, sa)) = self.node.shown_sa(now, spi) {
            let record = self.node.record(now, spi);
            return Ok(CookieInfo {
                cookie: hex(spi),
                phase: "established".into(),
                cluster_peer: owner.and_then(|owner| self.sync_address(owner)),
                slot: sa.slot.0,
                peer: Some(sa.remote.ip().to_string()),
                phase1_msgid: 0,
                phase2_msgid: record.as_ref().map(|record| record.next_request),
                phase2_expected_msgid: record.as_ref().map(|record| record.expected_request),
                sa: Some(self.counted(owner, &sa)),
            });
        }
        let unknown = || not_found(format!("nothing is known of cookie {}", hex(spi)));
        let (member, slot, peer, phase) = self
            .half_open_cookie(spi, wish.message_id)
            .ok_or_else(unknown)?;
        Ok(CookieInfo {
            cookie: hex(spi),
            phase: phase.into(),
            cluster_peer: self.sync_address(member),
            slot: slot.0,
            peer: peer.map(|peer| peer.to_string()),
            phase1_msgid: 0,
            phase2_msgid: None,
            phase2_expected_msgid: None,
            sa: None,
        })
    }

    /// Member, slot and peer of a negotiation with this cookie, ours or the peer's; or whose the
    /// cookie is by hand.
    fn half_open_cookie(
        &self,
        spi: [u8; 8],
        message_id: Option<MessageId>,
    ) -> Option<(MemberId, Slot, Option<std::net::IpAddr>, &'static str)> {
        let ownership = self.node.cluster().ownership();
        let exact = match message_id {
            Some(MessageId::Number(number)) => Some(number.to_be_bytes()),
            _ => None,
        };
        let by_hand = exact
            .into_iter()
            .chain([ANY_MESSAGE_ID])
            .find_map(|message_id| {
                ownership.pinned(&NegotiationKey {
                    cookie: spi,
                    message_id,
                    peer: Address::UNSPECIFIED,
                })
            });
        if let Some(pin) = by_hand {
            return Some((pin.member, pin.slot, None, "reserved"));
        }
        let mut all = ownership.negotiations();
        let (member, opened) = all.find(|(_, opened)| {
            let negotiation = &opened.negotiation;
            negotiation.local_cookie == spi || negotiation.peer_cookie == spi
        })?;
        Some((
            member,
            opened.slot,
            Some(opened.negotiation.peer),
            "half-open",
        ))
    }

    pub(super) fn reserve_cookie(&mut self, dry_run: bool) -> Result<ReservedCookie, Refusal> {
        let cookie = self.node.draw_cookie();
        let local = self.config.cluster.local;
        let key = reservation(cookie);
        if dry_run {
            self.node.pin_slot(key, local).map_err(pinning)?;
        } else {
            self.node.pin(clock::now(), key, local).map_err(pinning)?;
            self.carry_out();
        }
        Ok(self.reserved(cookie))
    }

    pub(super) fn release_cookie(
        &mut self,
        wish: &ReleasedCookie,
    ) -> Result<ReservedCookie, Refusal> {
        let spi = cookie(&wish.cookie)?;
        let key = reservation(spi);
        let ownership = self.node.cluster().ownership();
        let used = self.established(&key).is_some()
            || ownership
                .negotiations()
                .any(|(_, opened)| opened.negotiation.local_cookie == spi);
        if used {
            return Err(conflict(format!("cookie {} is in use", hex(spi))));
        }
        if ownership.pinned(&key).is_none() {
            return Err(not_found(format!("cookie {} is not reserved", hex(spi))));
        }
        let shown = self.reserved(spi);
        if !wish.dry_run {
            self.node.unpin(clock::now(), key);
            self.carry_out();
        }
        Ok(shown)
    }

    fn reserved(&self, cookie: [u8; 8]) -> ReservedCookie {
        let pin = self.node.cluster().ownership().pinned(&reservation(cookie));
        let left = pin.map_or(gateway_cluster::change::NEGOTIATION_LIFETIME, |pin| {
            pin.expires - clock::now()
        });
        ReservedCookie {
            cookie: hex(cookie),
            cluster_peer: self
                .sync_address(self.config.cluster.local)
                .unwrap_or_default(),
            expires_in_seconds: left.as_secs_f64(),
        }
    }

    pub(super) fn initiate_here(&mut self, wish: &Initiation) -> Result<Initiated, Refusal> {
        let name = &wish.connection;
        if !self.all_connections().any(|known| known.name == *name) {
            return Err(not_found(format!("there is no connection \"{name}\"")));
        }
        let target = Target {
            connection: name.clone(),
            child: wish.child.clone(),
            spi: None,
        };
        // Before it is done, so that a dry run names whom the order itself would go to.
        let slots = self.would_order(What::Initiate, &target)?;
        let owner = slots
            .first()
            .and_then(|slot| self.node.view().slots.owner(*slot));
        let cluster_member_ip = owner.and_then(|owner| self.sync_address(owner));
        let ordered = match wish.dry_run {
            true => None,
            false => Some(self.order(What::Initiate, &target)?),
        };
        Ok(Initiated {
            cluster_member_ip,
            ordered,
        })
    }

    pub(super) fn sa_sync(&self) -> Result<SaSync, Refusal> {
        let status = self.sync();
        let (ike_sas, child_sas) = self.node.owned();
        let address = |id: u8| {
            let member = MemberId::new(id).and_then(|id| self.sync_address(id));
            member.unwrap_or_default()
        };
        let local = self.sync_address(self.config.cluster.local);
        let local = local.ok_or_else(|| precondition("this member is not configured"))?;
        Ok(SaSync {
            local,
            inbound: InboundSync {
                ike_sas: status.records,
                owned_ike_sas: ike_sas,
                owned_child_sas: child_sas,
                in_sync: status.released == status.published,
            },
            outbound: OutboundSync {
                mode: "sticky".into(),
                outbound_sas: child_sas,
            },
            members: status
                .peers
                .into_iter()
                .map(|sync| MemberSync {
                    sync_address: address(sync.id),
                    sync,
                })
                .collect(),
        })
    }
}

/// A cookie is reserved by an entry for all messages with it.
const fn reservation(cookie: [u8; 8]) -> NegotiationKey {
    NegotiationKey {
        cookie,
        message_id: ANY_MESSAGE_ID,
        peer: Address::UNSPECIFIED,
    }
}
