//! What the endpoint counts.

use crate::wire::{ExchangeType, HeaderRepr};

/// Declares [`Counters`] so that the fields, their names for operators and the list of both can
/// never disagree.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the endpoint was made. They only grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// IKE_SA_INIT requests whose header is well formed, retransmissions and floods included.
    init_requests,
    /// Authentic new IKE_AUTH requests.
    auth_requests,
    /// Authentic new INFORMATIONAL requests.
    informational_requests,
    /// Authentic new CREATE_CHILD_SA requests.
    create_child_requests,
    /// Authentic new IKE_FOLLOWUP_KE requests.
    followup_ke_requests,
    /// IKE_SA_INIT requests of ours, again with a COOKIE or another key exchange included.
    init_requests_sent,
    /// IKE_AUTH requests of ours.
    auth_requests_sent,
    /// CREATE_CHILD_SA requests of ours.
    create_child_requests_sent,
    /// INFORMATIONAL requests of ours.
    informational_requests_sent,
    /// Well-formed IKE_SA_INIT responses to requests of ours. They are not protected.
    init_responses,
    /// Authentic IKE_AUTH responses.
    auth_responses,
    /// Authentic CREATE_CHILD_SA responses.
    create_child_responses,
    /// Authentic INFORMATIONAL responses.
    informational_responses,
    /// IKE_SA_INIT responses of ours, those with a COOKIE or an error included.
    init_responses_sent,
    /// IKE_AUTH responses of ours.
    auth_responses_sent,
    /// CREATE_CHILD_SA responses of ours.
    create_child_responses_sent,
    /// INFORMATIONAL responses of ours.
    informational_responses_sent,
    /// Successors of IKE SAs that we asked for.
    ike_rekeys_initiated,
    /// Successors of IKE SAs that peers asked for.
    ike_rekeys_answered,
    /// Successors of CHILD_SAs, whoever asked for them.
    child_rekeys,
    /// Exchanges that this endpoint processed: every new request that changed its state, each
    /// counted once. Summed over the members of a cluster it equals the exchanges of the peers.
    exchanges_processed,
    /// Retransmitted requests answered from the cache.
    retransmissions_answered,
    /// Retransmitted requests dropped because the first one is still being worked on.
    retransmissions_dropped,
    /// IKE_SA_INIT responses that carry a COOKIE.
    cookies_sent,
    /// Requests to unknown IKE SAs that were answered with INVALID_IKE_SPI.
    invalid_ike_spi_sent,
    /// IKE_SA_INIT requests that returned a valid COOKIE.
    cookies_accepted,
    /// IKE SAs that completed IKE_AUTH, and successors by rekeying.
    ike_sas_established,
    /// CHILD_SAs installed.
    child_sas_installed,
    /// Requests of ours, each counted once.
    requests_sent,
    /// Requests of ours that were sent again.
    requests_resent,
    /// Responses to requests of ours.
    responses_received,
    /// Peers given up because they did not answer.
    peers_lost,
    /// IKE SAs whose record turned out to be stale after a takeover: an authentic message was ahead of
    /// it. Their peers were asked to agree on Message IDs (RFC 6311).
    replicas_overtaken,
    /// Authentic fragments of messages (RFC 7383).
    fragments_received,
    /// Messages put together from fragments.
    messages_reassembled,
    /// NAT keepalives.
    keepalives_sent,
    /// Peers that were sent to another gateway (RFC 5685).
    redirects_sent,
    /// CHILD_SAs that the kernel refused or did not confirm in time.
    kernel_failures,
    /// IKE_AUTH requests answered with AUTHENTICATION_FAILED.
    authentication_failures,
    /// Authenticated peers that somebody else was asked about.
    decisions_asked,
    /// Peers that were not let in.
    decisions_refused,
    /// … because nobody has decided in time.
    decisions_overdue,
    /// Decisions that came too late, twice, or for what is gone.
    decisions_ignored,
    /// Negotiations given up because IKE_AUTH did not come in time.
    half_open_timeouts,
    /// Half-open IKE SAs that another member was to go on with.
    negotiations_handed_over,
    /// Half-open IKE SAs of another member that this one goes on with.
    negotiations_taken_over,
    /// Datagrams dropped without an answer, for any of the reasons below.
    dropped,
    /// … because the header or the payload chain is malformed.
    dropped_malformed,
    /// … because it is IKEv1 (major version 1).
    dropped_ikev1,
    /// … because our SPI in it names no IKE SA.
    dropped_unknown_spi,
    /// … because the integrity check failed.
    dropped_integrity,
    /// … because the Message ID is outside the window.
    dropped_message_id,
    /// … because the half-open limits are reached.
    dropped_half_open_limit,
    /// … because a stateless answer would exceed its rate.
    dropped_rate_limit,
    /// … because it is a response and nothing is outstanding.
    dropped_unexpected_response,
    /// … because the exchange does not fit the state of the IKE SA.
    dropped_unexpected_exchange,
    /// … because it is a fragment that is held already, is malformed, or was not agreed on.
    dropped_fragment,
    /// … because the fragments of its message take too much memory.
    dropped_fragment_limit,
}

impl Counters {
    /// A message of ours that leaves for the first time.
    pub(crate) fn sent(&mut self, header: &HeaderRepr) {
        let counter = match (header.exchange, header.response) {
            (ExchangeType::IKE_SA_INIT, false) => &mut self.init_requests_sent,
            (ExchangeType::IKE_SA_INIT, true) => &mut self.init_responses_sent,
            (ExchangeType::IKE_AUTH, false) => &mut self.auth_requests_sent,
            (ExchangeType::IKE_AUTH, true) => &mut self.auth_responses_sent,
            (ExchangeType::CREATE_CHILD_SA, false) => &mut self.create_child_requests_sent,
            (ExchangeType::CREATE_CHILD_SA, true) => &mut self.create_child_responses_sent,
            (ExchangeType::INFORMATIONAL, false) => &mut self.informational_requests_sent,
            (ExchangeType::INFORMATIONAL, true) => &mut self.informational_responses_sent,
            _ => return,
        };
        *counter += 1;
    }

    /// An authentic response to a request of ours.
    pub(crate) fn response(&mut self, exchange: ExchangeType) {
        self.responses_received += 1;
        let counter = match exchange {
            ExchangeType::IKE_AUTH => &mut self.auth_responses,
            ExchangeType::CREATE_CHILD_SA => &mut self.create_child_responses,
            ExchangeType::INFORMATIONAL => &mut self.informational_responses,
            _ => return,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_fields() {
        let counters = Counters {
            init_requests: 3,
            dropped: 1,
            ..Counters::default()
        };
        let listed: Vec<_> = counters.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(listed, [("init_requests", 3), ("dropped", 1)]);
    }
}
