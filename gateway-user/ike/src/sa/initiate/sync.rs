//! Message ID synchronisation after a takeover (RFC 6311), both sides of it.

use gateway_common::time::Instant;

use super::{Draft, Task};
use crate::endpoint::core::Core;
use crate::error::{IkeError, LocalError};
use crate::record::Purpose;
use crate::sa::window::Window;
use crate::sa::{Established, IkeSa, Request, Silence, Step};
use crate::wire::{
    Body, ExchangeType, Message, MessageBuilder, NotifyRepr, NotifyType, Payload, Payloads,
};

/// How far our Message IDs jump. RFC 6311 §5.1: larger "than any value known to have been used",
/// at least by the window; more does no harm, and there are 2^32.
const JUMP: u64 = 16;

/// The content of IKEV2_MESSAGE_ID_SYNC (RFC 6311 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SyncIds {
    nonce: [u8; 4],
    /// The sender's next request.
    send: u32,
    /// What the sender expects next.
    receive: u32,
}

impl SyncIds {
    fn parse(payloads: &Payloads<'_>) -> Option<Self> {
        let notify = payloads.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC)?;
        let (nonce, rest) = notify.data.split_first_chunk::<4>()?;
        let (send, receive) = rest.split_first_chunk::<4>()?;
        Some(Self {
            nonce: *nonce,
            send: u32::from_be_bytes(*send),
            receive: u32::from_be_bytes(receive.try_into().ok()?),
        })
    }

    fn data(self) -> [u8; 12] {
        let mut data = [0; 12];
        data[..4].copy_from_slice(&self.nonce);
        data[4..8].copy_from_slice(&self.send.to_be_bytes());
        data[8..].copy_from_slice(&self.receive.to_be_bytes());
        data
    }
}

impl IkeSa {
    /// Asks the peer to agree on Message IDs, if it can. What is outstanding comes first, but not
    /// for long: the peer may have taken it already, and asking for the same thing again under
    /// another Message ID would find it done; if it does not answer, that may be because the
    /// replica lags behind. `false` if the peer does not support it.
    pub(crate) fn synchronise(&mut self) -> bool {
        if !self.established().is_some_and(|e| e.peer_syncs) {
            return false;
        }
        self.add_task(Task::SyncMessageIds);
        true
    }

    /// The same where only a doubt speaks for it: `false` also if it may cost the IKE SA. With
    /// algorithms whose IVs must not repeat some peers make them of Message IDs (strongSwan 5.9.8
    /// does): one that has answered Message ID 0 before cannot encrypt this answer, and forgets the
    /// IKE SA without a word.
    pub(crate) fn synchronise_in_doubt(&mut self) -> bool {
        let answered = self.established().is_none_or(|e| e.next_request > 0);
        !(answered && self.proposal.encryption.is_combined_mode()) && self.synchronise()
    }

    /// A message with a Message ID that the peer could only use after exchanges that this side knows
    /// nothing of: the record that it went on from was stale (RFC 6311 §3). Asks the peer to agree on
    /// Message IDs, once per takeover, if it can and if the message is authentic; no replay is,
    /// because its Message ID would have been used before. Whether it is that.
    pub(in crate::sa) fn is_overtaken(
        &mut self,
        core: &mut Core,
        now: Instant,
        message: &Message<'_>,
    ) -> bool {
        let header = message.header();
        let ahead = match (header.response, self.established()) {
            (_, None) => false,
            (false, Some(_)) => header.message_id > self.window.expected(),
            (true, Some(established)) => u64::from(header.message_id) >= established.next_request,
        };
        let asks = |e: &&Established| e.resumed && e.peer_syncs && !e.closing;
        let Body::Encrypted(encrypted) = message.body() else {
            return false;
        };
        if core.divided {
            return header.response && ahead && self.catch_up_with(core, now, message);
        }
        if !ahead
            || self.established().filter(asks).is_none()
            || self.open(core, encrypted).is_err()
        {
            return false;
        }
        core.counters.replicas_overtaken += 1;
        if let Some(established) = self.established_mut() {
            established.resumed = false;
            established.heard = true;
        }
        self.synchronise()
    }

    /// Whether a synchronisation waits for what is outstanding.
    pub(super) fn wants_sync(&self) -> bool {
        self.established()
            .is_some_and(|e| e.tasks.contains(&Task::SyncMessageIds))
    }

    /// Makes tasks of what is outstanding. What the peer may have of it and we do not is to be
    /// deleted.
    pub(super) fn ask_anew(&mut self, core: &mut Core) {
        let purpose = self.purpose().cloned();
        let tasks = purpose.map_or_else(Vec::new, |purpose| self.tasks_of(purpose));
        if let Some(established) = self.established_mut() {
            established.tasks.extend(tasks);
        }
        self.drop_outstanding(core);
    }

    /// What has to be done so that a request is made again. What the peer may have of the first one is
    /// noted as unwanted.
    pub(super) fn tasks_of(&mut self, purpose: Purpose) -> Vec<Task> {
        let Some(established) = self.established_mut() else {
            return Vec::new();
        };
        match purpose {
            Purpose::Liveness | Purpose::Redirect | Purpose::SyncMessageIds(_) => Vec::new(),
            Purpose::VerifyPath { .. } => vec![Task::VerifyPath],
            Purpose::UpdateAddresses { .. } => vec![Task::UpdateAddresses],
            Purpose::CloseIke => vec![Task::CloseIke],
            Purpose::RekeyIke(_) => vec![Task::RekeyIke],
            Purpose::CloseChildren(mut spis) => {
                spis.retain(|spi| established.child(*spi).is_none());
                established.unwanted.append(&mut spis);
                vec![Task::CloseChildren]
            }
            Purpose::Child(offer) => {
                established.unwanted.push(offer.spi_in);
                let again = match offer.rekeys {
                    Some(spi) => Task::RekeyChild(spi),
                    None => Task::CreateChild(offer.name),
                };
                vec![Task::CloseChildren, again]
            }
        }
    }

    /// RFC 6311 §5: Message ID 0, and nothing but the notification. Our next request is numbered
    /// behind what this announces, on every replica.
    pub(super) fn draft_sync(&mut self, core: &mut Core) -> Result<Option<Draft>, IkeError> {
        let receive = self.window.expected();
        let Some(established) = self.established_mut() else {
            return Ok(None);
        };
        let next = established.next_request + JUMP;
        let send = u32::try_from(next).map_err(|_| LocalError::NoMessageId)?;
        established.next_request = next;
        let mut nonce = [0; 4];
        core.crypto.random(&mut nonce);
        let ids = SyncIds {
            nonce,
            send,
            receive,
        };
        let data = ids.data();
        let notify = NotifyRepr::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, &data);
        let message = MessageBuilder::new(self.header(ExchangeType::INFORMATIONAL, 0))
            .with(&Payload::Notify(notify));
        Ok(Some(Draft {
            message_id: 0,
            message,
            purpose: Purpose::SyncMessageIds(nonce),
        }))
    }

    /// Whether a response to our synchronisation carries no or another nonce than ours.
    pub(super) fn is_foreign_sync(&self, payloads: &Payloads<'_>) -> bool {
        let purpose = self
            .established()
            .and_then(|e| e.outstanding.as_ref())
            .map(|o| &o.request.purpose);
        match purpose {
            Some(Purpose::SyncMessageIds(nonce)) => {
                SyncIds::parse(payloads).is_none_or(|ids| ids.nonce != *nonce)
            }
            _ => false,
        }
    }

    /// The peer has answered with what both use from now on: the higher values.
    pub(super) fn synchronised(&mut self, payloads: &Payloads<'_>) {
        let Some(ids) = SyncIds::parse(payloads) else {
            return;
        };
        if ids.send > self.window.expected() {
            self.window = Window::resume(ids.send, None);
        }
        if let Some(established) = self.established_mut() {
            established.next_request = established.next_request.max(u64::from(ids.receive));
            established.dirty = true;
        }
    }

    /// The peer, a cluster itself, synchronises with us (RFC 6311 §5.1). Only the sender of a
    /// request that was taken gets an answer, and only once: whatever comes again may be a replay.
    pub(in crate::sa) fn answer_sync(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        payloads: &Payloads<'_>,
    ) -> Result<Step, Silence> {
        let ids = SyncIds::parse(payloads).ok_or(Silence::MessageId)?;
        let expected = self.window.expected();
        let Some(established) = self.established_mut().filter(|e| e.peer_syncs) else {
            return Err(Silence::MessageId);
        };
        // "The peer MUST silently drop any received synchronization message if M1 is lower than or
        // equal to the highest value it has seen from the cluster."
        let replayed = established.peer_synced.is_some_and(|seen| ids.send <= seen);
        if ids.send < expected || replayed {
            return Err(Silence::MessageId);
        }
        established.peer_synced = Some(ids.send);
        established.dirty = true;
        let next = established
            .next_request
            .max(u64::from(ids.receive))
            .min(u64::from(u32::MAX));
        established.next_request = next;
        self.window = Window::resume(ids.send, None);
        let answer = SyncIds {
            nonce: ids.nonce,
            send: u32::try_from(next).unwrap_or(u32::MAX),
            receive: ids.send,
        };
        // "The peer should not wait for any pending responses" (RFC 6311 §9).
        self.ask_anew(core);
        let message = MessageBuilder::new(request.header.to_response()).with(&Payload::Notify(
            NotifyRepr::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, &answer.data()),
        ));
        self.answer_outside_window(core, now, request, message);
        Ok(Step::Waiting)
    }
}
