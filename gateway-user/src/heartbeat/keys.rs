//! Keys of the heartbeats: exported from the TLS sessions of the sync channel, one per direction.

use std::collections::VecDeque;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// Octets of the authentication tag: HMAC-SHA-256, truncated (RFC 2104 §5).
pub(super) const TAG: usize = 16;
/// Label of the exporter (RFC 8446 §7.5); the context tells purpose and direction.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-gateway-heartbeat";
/// Sessions whose keys are accepted: one that has just been replaced may still be in use at the
/// other end.
const ACCEPTED: usize = 3;

/// The keys of one session with one peer. They outlive the session's connection: they serve until
/// the next one.
pub struct SessionKeys {
    id: u32,
    send: hmac::Key,
    receive: hmac::Key,
}

impl SessionKeys {
    /// Derives the keys between `local` and `remote` (member ids; 0 = the witness). `export` fills
    /// its first argument with octets that depend on the session, the second, and nothing else.
    ///
    /// # Errors
    /// Those of `export`.
    pub fn derive<E>(
        local: u8,
        remote: u8,
        mut export: impl FnMut(&mut [u8], &[u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut id = [0; 4];
        export(&mut id, b"id")?;
        let mut key = |from: u8, to: u8| {
            let mut octets = Zeroizing::new([0; 32]);
            export(&mut *octets, &[b'k', from, to])?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &*octets))
        };
        Ok(Self {
            id: u32::from_be_bytes(id),
            send: key(local, remote)?,
            receive: key(remote, local)?,
        })
    }

    /// Keys from a secret that both ends were given.
    pub fn from_shared(local: u8, remote: u8, secret: &[u8; 32]) -> Self {
        let shared = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = Self::derive(local, remote, |out, context| {
            let mut text = EXPORTER_LABEL.to_vec();
            text.extend_from_slice(context);
            let tag = hmac::sign(&shared, &text);
            for (to, from) in out.iter_mut().zip(tag.as_ref()) {
                *to = *from;
            }
            Ok::<(), std::convert::Infallible>(())
        });
        match derived {
            Ok(keys) => keys,
            Err(never) => match never {},
        }
    }

    /// Whether the other end has what this one has.
    #[cfg(test)]
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.id == other.id && other.verify(b"text", &self.sign(b"text"))
    }

    /// Names the session in datagrams.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// The tag of what we send.
    pub(super) fn sign(&self, octets: &[u8]) -> [u8; TAG] {
        truncated(&self.send, octets)
    }

    /// Whether the peer made `tag`.
    pub(super) fn verify(&self, octets: &[u8], tag: &[u8]) -> bool {
        verify_slices_are_equal(&truncated(&self.receive, octets), tag).is_ok()
    }
}

fn truncated(key: &hmac::Key, octets: &[u8]) -> [u8; TAG] {
    let full = hmac::sign(key, octets);
    let mut tag = [0; TAG];
    for (to, from) in tag.iter_mut().zip(full.as_ref()) {
        *to = *from;
    }
    tag
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys")
            .field("id", &format_args!("{:08x}", self.id))
            .finish_non_exhaustive()
    }
}

/// The keys that are shared with one peer.
#[derive(Debug, Default)]
pub(super) struct KeyRing {
    /// Newest first.
    accepted: VecDeque<Arc<SessionKeys>>,
    /// Which of them the peer has for certain.
    sending: Option<u32>,
}

impl KeyRing {
    /// A new session. Unless `shared` (the peer has the keys for certain), the keys before go on
    /// being used until it has been heard with the new ones: the end that dials has them first.
    pub(super) fn install(&mut self, keys: Arc<SessionKeys>, shared: bool) {
        let id = keys.id();
        self.accepted.retain(|known| known.id() != id);
        self.accepted.push_front(keys);
        self.accepted.truncate(ACCEPTED);
        if shared || self.current().is_none() {
            self.sending = Some(id);
        }
    }

    /// The keys to send with.
    pub(super) fn current(&self) -> Option<&SessionKeys> {
        let id = self.sending?;
        self.accepted
            .iter()
            .find(|keys| keys.id() == id)
            .map(AsRef::as_ref)
    }

    /// Whether the peer made `tag` with the keys called `id`; if these are newer than those that we
    /// send with, we follow.
    pub(super) fn verify(&mut self, id: u32, octets: &[u8], tag: &[u8]) -> Verdict {
        let Some(place) = self.accepted.iter().position(|keys| keys.id() == id) else {
            return Verdict::UnknownKey;
        };
        if !self.accepted[place].verify(octets, tag) {
            return Verdict::Forged;
        }
        let sending = |sending| self.accepted.iter().position(|keys| keys.id() == sending);
        if self.sending.and_then(sending).is_none_or(|at| place < at) {
            self.sending = Some(id);
        }
        Verdict::Authentic
    }
}

/// What a tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The peer made it.
    Authentic,
    /// It names no session that we know.
    UnknownKey,
    /// Somebody else made it, or it was damaged.
    Forged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(secret: u8) -> (Arc<SessionKeys>, Arc<SessionKeys>) {
        let keys = |local, remote| SessionKeys::from_shared(local, remote, &[secret; 32]);
        (Arc::new(keys(1, 2)), Arc::new(keys(2, 1)))
    }

    #[test]
    fn each_direction_has_its_own_key() {
        let (a, b) = pair(7);
        let tag = a.sign(b"text");
        assert!(b.verify(b"text", &tag));
        assert!(!b.verify(b"texT", &tag));
        assert!(!b.verify(b"text", &tag[..15]));
        // A datagram that is sent back to its sender is not the other's.
        assert!(!a.verify(b"text", &tag));
    }

    #[test]
    fn the_dialling_end_changes_over_when_the_other_has() {
        let (old_a, old_b) = pair(1);
        let (new_a, new_b) = pair(2);
        let (mut a, mut b) = (KeyRing::default(), KeyRing::default());
        a.install(Arc::clone(&old_a), false);
        b.install(Arc::clone(&old_b), true);
        a.install(Arc::clone(&new_a), false);
        assert_eq!(a.current().map(SessionKeys::id), Some(old_a.id()));
        let tag = old_a.sign(b"x");
        assert_eq!(b.verify(old_a.id(), b"x", &tag), Verdict::Authentic);

        b.install(Arc::clone(&new_b), true);
        assert_eq!(b.verify(old_a.id(), b"x", &tag), Verdict::Authentic);
        assert_eq!(b.current().map(SessionKeys::id), Some(new_b.id()));
        let tag = new_b.sign(b"y");
        assert_eq!(a.verify(new_b.id(), b"y", &tag), Verdict::Authentic);
        assert_eq!(a.current().map(SessionKeys::id), Some(new_a.id()));
        // A late datagram under the old keys does not take it back.
        let tag = old_b.sign(b"z");
        assert_eq!(a.verify(old_b.id(), b"z", &tag), Verdict::Authentic);
        assert_eq!(a.current().map(SessionKeys::id), Some(new_a.id()));
    }

    #[test]
    fn old_sessions_are_forgotten_and_the_ring_always_has_a_key_to_send_with() {
        let mut ring = KeyRing::default();
        assert!(ring.current().is_none());
        let sessions: Vec<_> = (0..5).map(pair).collect();
        for (own, _) in &sessions {
            ring.install(Arc::clone(own), false);
            assert!(ring.current().is_some());
        }
        let (_, peer) = &sessions[0];
        let verdict = ring.verify(peer.id(), b"x", &peer.sign(b"x"));
        assert_eq!(verdict, Verdict::UnknownKey);
    }

    #[test]
    fn forged_tags_change_nothing() {
        let (own, _) = pair(1);
        let (next, _) = pair(2);
        let mut ring = KeyRing::default();
        ring.install(Arc::clone(&own), true);
        ring.install(Arc::clone(&next), false);
        assert_eq!(ring.verify(next.id(), b"x", &[0; TAG]), Verdict::Forged);
        assert_eq!(ring.current().map(SessionKeys::id), Some(own.id()));
    }
}
