//! What was measured.

use serde::Serialize;

/// Octets.
pub(super) const MIB: u64 = 1 << 20;

/// One size.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Pairs of IKE SA and CHILD_SA.
    pub full_sync_sas: usize,
    /// From the first connection of the joining member until it had everything of both others.
    pub full_sync_seconds: f64,
    /// Octets per pair that the joining member was sent, by both others together, before TLS.
    pub full_sync_bytes_per_sa: f64,
    /// Octets of a new pair's deltas to one member, before TLS: both exchanges of its handshake.
    pub bytes_per_sa: f64,
    /// The same on the wire: TLS, TCP and IP included, acknowledgements not.
    pub wire_bytes_per_sa: f64,
    /// Handshakes per second, one core of the members' and the peers' together being what there was.
    pub handshakes_per_second: f64,
    /// Handshakes since the first row that peers had to begin a second time.
    pub handshakes_begun_anew: usize,
    /// From the moment at which the owner's agent stopped to the survivor's judgement: the silence
    /// after its last heartbeat.
    pub detected_ms: f64,
    /// From the judgement until the survivors' data paths had the new owner for all slots.
    pub takeover_ms: f64,
    /// From the judgement until the new owner's first answer to a peer.
    pub first_answer_ms: f64,
    /// IKE SAs that did not answer after the takeover, of those that were asked.
    pub lost_ike_sas: usize,
    /// How many were asked.
    pub asked_ike_sas: usize,
    /// Longest pause between two heartbeats of one member to another on the sync network while the
    /// full sync ran.
    pub longest_heartbeat_pause_ms: f64,
    /// How often a member found itself late meanwhile.
    pub freezes: u64,
    /// Views that were formed meanwhile: one takes the joining member in.
    pub views: u64,
    /// Longest time that an exchange took meanwhile: its delta had to be acknowledged.
    pub longest_exchange_ms: f64,
    /// Exchanges without an answer meanwhile.
    pub unanswered: usize,
    /// Resident octets of the owner's agent per pair, above those of an empty one.
    pub owner_bytes_per_sa: f64,
    /// The same of the joining member, in the end.
    pub joiner_bytes_per_sa: f64,
    /// How much more the owner's agent took at most while it sent everything.
    pub sender_growth_bytes: u64,
    /// How much more the joining member's took at most than in the end.
    pub joiner_overshoot_bytes: u64,
}

impl Cost {
    /// One line.
    pub(super) fn brief(&self) -> String {
        format!(
            "{} SAs: full sync {:.2} s, {:.0} B per SA in it; {:.0} B of deltas per SA ({:.0} on \
             the wire); takeover {:.1} ms after detection at {:.0} ms, first answer {:.1} ms, {} of \
             {} SAs lost; heartbeats at most {:.0} ms apart, {} views, {} freezes, exchanges up to \
             {:.1} ms, {} unanswered; memory per SA {:.0} B at the owner, {:.0} B at the joiner; \
             sender +{:.1} MiB, joiner +{:.1} MiB at the peak",
            self.full_sync_sas,
            self.full_sync_seconds,
            self.full_sync_bytes_per_sa,
            self.bytes_per_sa,
            self.wire_bytes_per_sa,
            self.takeover_ms,
            self.detected_ms,
            self.first_answer_ms,
            self.lost_ike_sas,
            self.asked_ike_sas,
            self.longest_heartbeat_pause_ms,
            self.views,
            self.freezes,
            self.longest_exchange_ms,
            self.unanswered,
            self.owner_bytes_per_sa,
            self.joiner_bytes_per_sa,
            self.sender_growth_bytes as f64 / MIB as f64,
            self.joiner_overshoot_bytes as f64 / MIB as f64,
        )
    }
}
