//! The peer's requests: Message IDs with a window of one, and the response to the last one.

use crate::output::DeltaId;

/// The response that a retransmitted request gets again, octet for octet (RFC 7296 §2.1: the
/// responder "MUST remember each response until it receives a request whose sequence number is
/// larger").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResponse {
    /// Message ID of the exchange.
    pub message_id: u32,
    /// SHA-256 of the request datagram; of one in fragments, of the first (RFC 7383 §2.6.1). A retransmission is bitwise identical (RFC 7296 §2.1), so
    /// it is recognised without decrypting anything, and nothing else gets an answer twice.
    pub request_digest: [u8; 32],
    /// The response, without non-ESP marker. One in fragments (RFC 7383): all of its messages, one
    /// after the other.
    pub bytes: Box<[u8]>,
}

/// What a request's Message ID makes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    /// The next request.
    New,
    /// The next request once more, while the first one is still being worked on.
    InProgress,
    /// The last request once more; here is its response, and the delta that must have been
    /// acknowledged before it may leave.
    Retransmission(&'a CachedResponse, Option<DeltaId>),
    /// Too old, too new, or the last Message ID with other content. RFC 7296 §2.3: "MUST NOT be
    /// sent in a response; the invalid request MUST NOT be acknowledged".
    Outside,
}

/// Requests of the peer (window size 1, RFC 7296 §2.3).
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The next Message ID to be accepted. 64 bits, so that the end of the 32-bit space cannot wrap
    /// to an old one: RFC 7296 §2.2 wants the IKE SA closed then, and here nothing more matches.
    expected: u64,
    in_progress: bool,
    last: Option<CachedResponse>,
    delta: Option<DeltaId>,
}

impl Window {
    /// A window that expects `expected` next; `last` is what came before it.
    pub(crate) fn resume(expected: u32, last: Option<CachedResponse>) -> Self {
        Self {
            expected: u64::from(expected),
            in_progress: false,
            last,
            delta: None,
        }
    }

    /// Classifies a request. `digest` is only computed for what may be a retransmission.
    pub(crate) fn classify(
        &self,
        message_id: u32,
        digest: impl FnOnce() -> [u8; 32],
    ) -> Arrival<'_> {
        let id = u64::from(message_id);
        if id == self.expected {
            return if self.in_progress {
                Arrival::InProgress
            } else {
                Arrival::New
            };
        }
        match &self.last {
            Some(last) if last.message_id == message_id && last.request_digest == digest() => {
                Arrival::Retransmission(last, self.delta)
            }
            _ => Arrival::Outside,
        }
    }

    /// The expected request is authentic but its answer has to wait.
    pub(crate) fn begin(&mut self) {
        self.in_progress = true;
    }

    /// The expected request is answered.
    pub(crate) fn complete(&mut self, response: CachedResponse) {
        self.expected = u64::from(response.message_id) + 1;
        self.in_progress = false;
        self.last = Some(response);
        self.delta = None;
    }

    /// Names the delta that the last response depends on.
    pub(crate) fn depends_on(&mut self, delta: DeltaId) {
        self.delta = Some(delta);
    }

    /// The response to the last request, if that had this Message ID.
    pub(crate) fn response(&self, message_id: u32) -> Option<&[u8]> {
        let last = self.last.as_ref()?;
        (last.message_id == message_id).then_some(&last.bytes)
    }

    /// The delta that the last response depends on.
    pub(crate) fn delta(&self) -> Option<DeltaId> {
        self.delta
    }

    /// The next Message ID to be accepted, saturating.
    pub(crate) fn expected(&self) -> u32 {
        u32::try_from(self.expected).unwrap_or(u32::MAX)
    }

    /// The response to the last request.
    pub(crate) fn last(&self) -> Option<&CachedResponse> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(message_id: u32) -> CachedResponse {
        CachedResponse {
            message_id,
            request_digest: [1; 32],
            bytes: vec![message_id as u8].into(),
        }
    }

    #[test]
    fn one_request_at_a_time_and_the_last_one_again() {
        let mut window = Window::resume(1, None);
        assert_eq!(window.classify(0, || [1; 32]), Arrival::Outside);
        assert_eq!(window.classify(2, || [1; 32]), Arrival::Outside);
        assert_eq!(window.classify(1, || [1; 32]), Arrival::New);
        window.begin();
        assert_eq!(window.classify(1, || [1; 32]), Arrival::InProgress);
        window.complete(response(1));
        window.depends_on(DeltaId(9));
        assert_eq!(
            window.classify(1, || [1; 32]),
            Arrival::Retransmission(&response(1), Some(DeltaId(9)))
        );
        assert_eq!(window.classify(1, || [2; 32]), Arrival::Outside);
        assert_eq!(window.classify(2, || [1; 32]), Arrival::New);
    }

    #[test]
    fn the_end_of_the_message_ids_does_not_wrap() {
        let mut window = Window::resume(u32::MAX, None);
        window.complete(response(u32::MAX));
        assert_eq!(window.classify(0, || [1; 32]), Arrival::Outside);
    }
}
