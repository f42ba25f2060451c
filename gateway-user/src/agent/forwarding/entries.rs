//! Entries of `SEP_my_IKE_packet`: listed, made, changed, removed.

use std::collections::BTreeMap;

use gateway_cluster::change::{Cookie, NEGOTIATION_LIFETIME};
use gateway_common::abi::{Address, NegotiationKey, NegotiationState, NegotiationValue};
use gateway_common::member::MemberId;
use gateway_common::time::Instant;
use gateway_node::PinError;

use super::{
    conflict, key_of_text, map_key, message_id, not_found, peer, pinning, precondition, table,
    text_of_key,
};
use crate::agent::Agent;
use crate::agent::notices::takes_traffic;
use crate::agent::pages::{cookie, hex, invalid, limit};
use crate::api::model::{
    ChangedEntry, Entry, EntryPage, EntryQuery, EntryState, NewEntry, Refusal, RefusalKind,
    RemovedEntry,
};
use crate::clock;
use crate::config::Mode;

/// What is answered where it may take its time.
pub(in crate::agent) type Later<T> = Box<dyn FnOnce() -> Result<T, Refusal> + Send>;

/// How entries name members.
struct Names {
    local: MemberId,
    sync_addresses: BTreeMap<MemberId, String>,
}

impl Names {
    fn entry(&self, key: &NegotiationKey, value: &NegotiationValue) -> Entry {
        let now = clock::now();
        let member = MemberId::new(value.member);
        Entry {
            key: text_of_key(key),
            cookie: hex(key.cookie),
            message_id: message_id(key),
            peer: peer(key).map(|peer| peer.to_string()),
            member: member
                .and_then(|member| self.sync_addresses.get(&member).cloned())
                .unwrap_or_default(),
            member_id: value.member,
            local: member == Some(self.local),
            slot: value.slot,
            state: state(value),
            age_seconds: (now - Instant::from_nanos(value.created_ns)).as_secs_f64(),
            expires_in_seconds: (Instant::from_nanos(value.expires_ns) - now).as_secs_f64(),
        }
    }
}

impl Agent {
    fn names(&self) -> Names {
        let cluster = &self.config.cluster;
        let members = cluster.members.iter();
        Names {
            local: cluster.local,
            sync_addresses: members
                .map(|(id, member)| (*id, member.sync_address.to_string()))
                .collect(),
        }
    }

    pub(super) fn entry(&self, key: &NegotiationKey, value: &NegotiationValue) -> Entry {
        self.names().entry(key, value)
    }

    /// Those that a packet can meet. The table may be full, and is read beside the loop.
    pub(in crate::agent) fn entries(
        &self,
        query: &EntryQuery,
    ) -> Result<Later<EntryPage>, Refusal> {
        if let Some(key) = &query.key {
            let page = self.one_entry(query, key);
            return Ok(Box::new(move || page));
        }
        let limit = usize::from(limit(query.limit)?);
        let after = query.after.as_deref().map(position).transpose()?;
        let wanted = query.cookie.as_deref().map(cookie).transpose()?;
        let member = query.member.map(|address| self.member_at(address));
        let member = member.transpose()?;
        let (address, in_state) = (query.peer.map(Address::from), query.state);
        let (tables, names) = (self.steering.tables(), self.names());
        Ok(Box::new(move || {
            let now = clock::now().as_nanos();
            let mut all = tables.negotiations().map_err(table)?;
            all.retain(|(key, value)| {
                value.expires_ns > now
                    && after.is_none_or(|after| *key > after)
                    && wanted.is_none_or(|cookie| key.cookie == cookie)
                    && address.is_none_or(|address| key.peer == address)
                    && member.is_none_or(|member| value.member == member.get())
                    && in_state.is_none_or(|wanted| wanted == state(value))
            });
            all.sort_unstable_by_key(|(key, _)| *key);
            let more = all.len() > limit;
            all.truncate(limit);
            let next = all.last().filter(|_| more).map(|(key, _)| place(key));
            let entries = all.iter().map(|(key, value)| names.entry(key, value));
            Ok(EntryPage {
                entries: entries.collect(),
                next,
            })
        }))
    }

    fn one_entry(&self, query: &EntryQuery, text: &str) -> Result<EntryPage, Refusal> {
        let EntryQuery {
            key: _,
            cookie: None,
            peer,
            member: None,
            state: None,
            after: None,
            limit: None,
        } = query
        else {
            return Err(invalid(
                "beside `key` nothing but `peer` can be given".into(),
            ));
        };
        let key = key_of_text(text, *peer)?;
        let value = self.look(&key)?.ok_or_else(|| missing(&key))?;
        Ok(EntryPage {
            entries: vec![self.entry(&key, &value)],
            next: None,
        })
    }

    /// Makes an entry; one that is there is refused as `refusal`.
    pub(super) fn create_entry(
        &mut self,
        wish: &NewEntry,
        refusal: RefusalKind,
    ) -> Result<Entry, Refusal> {
        let key = map_key(&wish.cookie, wish.message_id, wish.peer)?;
        let member = match wish.member {
            Some(address) => self.member_at(address)?,
            None => self.config.cluster.local,
        };
        if let Some(value) = self.look(&key)? {
            let reason = format!(
                "there is an entry {} of member {} already",
                text_of_key(&key),
                value.member
            );
            return Err(Refusal::new(refusal, reason));
        }
        if let Some(slot) = self.established(&key) {
            let reason = PinError::Established(slot).to_string();
            return Err(Refusal::new(refusal, reason));
        }
        self.write_entry(key, member, wish.dry_run)
    }

    /// Hands a negotiation to a member.
    pub(super) fn change_entry(&mut self, wish: &ChangedEntry) -> Result<Entry, Refusal> {
        let key = map_key(&wish.cookie, wish.message_id, wish.peer)?;
        let member = self.member_at(wish.member)?;
        if let Some(slot) = self.established(&key) {
            return Err(pinning(PinError::Established(slot)));
        }
        let before = self.look(&key)?.ok_or_else(|| missing(&key))?;
        if before.member == member.get() {
            return Ok(self.entry(&key, &before));
        }
        if state(&before) == EntryState::HalfOpen {
            self.abort_negotiation(&key, &before, wish.force, wish.dry_run)?;
        }
        self.write_entry(key, member, wish.dry_run)
    }

    /// Removes an entry.
    pub(super) fn remove_entry(&mut self, wish: &RemovedEntry) -> Result<Entry, Refusal> {
        let key = key_of_text(&wish.key, wish.peer)?;
        if let Some(slot) = self.established(&key) {
            return Err(pinning(PinError::Established(slot)));
        }
        let before = self.look(&key)?.ok_or_else(|| missing(&key))?;
        let gone = self.entry(&key, &before);
        if state(&before) == EntryState::HalfOpen {
            self.abort_negotiation(&key, &before, wish.force, wish.dry_run)?;
        } else if !wish.dry_run {
            let known = self.node.unpin(clock::now(), key).is_some();
            self.carry_out();
            if !known {
                // What an earlier run wrote, and nobody has told again.
                self.steering
                    .tables()
                    .remove_negotiation(&key)
                    .map_err(table)?;
            }
        }
        Ok(gone)
    }

    /// The active member of a High Availability cluster takes an entry.
    pub(super) fn ha_ownership(&mut self, wish: &NewEntry) -> Result<Entry, Refusal> {
        if self.config.cluster.mode != Mode::Ha {
            return Err(precondition(
                "ha_active_member: this cluster is in Load Sharing mode, use cookie-resolution",
            ));
        }
        let (active, shown) = self.own_state();
        if !takes_traffic(active) {
            return Err(precondition(format!(
                "ha_active_member: this member is {shown}, not the active one"
            )));
        }
        self.only_here(wish.member)?;
        let key = map_key(&wish.cookie, wish.message_id, wish.peer)?;
        if let Some(slot) = self.established(&key) {
            return Err(pinning(PinError::Established(slot)));
        }
        let local = self.config.cluster.local;
        match self.look(&key)? {
            Some(value) if value.member == local.get() => Ok(self.entry(&key, &value)),
            Some(value) if state(&value) == EntryState::HalfOpen => Err(conflict(format!(
                "member {} holds this negotiation: change it with `force` in packet-tracking",
                value.member
            ))),
            _ => self.write_entry(key, local, wish.dry_run),
        }
    }

    fn write_entry(
        &mut self,
        key: NegotiationKey,
        member: MemberId,
        dry_run: bool,
    ) -> Result<Entry, Refusal> {
        let now = clock::now();
        if dry_run {
            let slot = self.node.pin_slot(key, member).map_err(pinning)?;
            let value = NegotiationValue {
                member: member.get(),
                slot: slot.0,
                state: NegotiationState::Static as u8,
                reserved: [0; 5],
                created_ns: now.as_nanos(),
                expires_ns: (now + NEGOTIATION_LIFETIME).as_nanos(),
            };
            return Ok(self.entry(&key, &value));
        }
        self.node.pin(now, key, member).map_err(pinning)?;
        // The answer says what stands in the map.
        self.carry_out();
        let value = self.look(&key)?;
        let value = value.ok_or_else(|| conflict("the entry could not be written: see the log"))?;
        Ok(self.entry(&key, &value))
    }

    /// A half-open negotiation is taken from its member only by force.
    fn abort_negotiation(
        &mut self,
        key: &NegotiationKey,
        value: &NegotiationValue,
        force: bool,
        dry_run: bool,
    ) -> Result<(), Refusal> {
        if !force {
            return Err(conflict(format!(
                "member {} is negotiating under this key: `force` aborts that",
                value.member
            )));
        }
        let found = self.negotiation_of(key);
        let (member, local_cookie) = found.ok_or_else(|| {
            conflict("nobody has told of this negotiation since the agent started: try again")
        })?;
        if !dry_run {
            let aborted = self.node.abort(clock::now(), member, local_cookie);
            aborted.map_err(pinning)?;
            self.carry_out();
        }
        Ok(())
    }

    /// Whose a negotiation with this key is, and our cookie of it.
    pub(super) fn negotiation_of(&self, key: &NegotiationKey) -> Option<(MemberId, Cookie)> {
        let mut all = self.node.cluster().ownership().negotiations();
        let found = all.find(|(_, opened)| opened.negotiation.keys().any(|known| known == *key));
        found.map(|(member, opened)| (member, opened.negotiation.local_cookie))
    }
}

pub(super) const fn state(value: &NegotiationValue) -> EntryState {
    if value.state == NegotiationState::Static as u8 {
        EntryState::Static
    } else {
        EntryState::HalfOpen
    }
}

fn missing(key: &NegotiationKey) -> Refusal {
    not_found(format!("there is no entry {}", text_of_key(key)))
}

/// A key with its peer, as `next` and `after` have it.
fn place(key: &NegotiationKey) -> String {
    match peer(key) {
        Some(peer) => format!("{}@{peer}", text_of_key(key)),
        None => text_of_key(key),
    }
}

fn position(text: &str) -> Result<NegotiationKey, Refusal> {
    match text.split_once('@') {
        Some((key, peer)) => {
            let address = peer
                .parse()
                .map_err(|_| invalid(format!("{peer:?} is no address")))?;
            key_of_text(key, Some(address))
        }
        None => key_of_text(text, None),
    }
}
