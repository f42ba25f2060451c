//! IKE_SA_INIT (RFC 7296 §1.2): from an acceptable request to a half-open IKE SA.

use gateway_common::abi::Address;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use crate::auth::{Announced, Transcript, announce};
use crate::config::{Childless, Config, Transport};
use crate::crypto::CryptoProvider;
use crate::error::{IkeError, PolicyError};
use crate::keys::{IkeKeys, Skeyseed};
use crate::output::Path;
use crate::proposal::{Chosen, IkeProposal};
use crate::record::{Role, TransportState};
use crate::sa::reassembly::Incoming;
use crate::sa::window::Window;
use crate::sa::{
    ExpectAuth, IkeSa, Intermediate, State, draw_nonce, fresh_ivs, is_redirectable, nat,
};
use crate::wire::{
    HeaderRepr, KeRepr, MessageBuilder, NonceRepr, NotifyRepr, NotifyType, Payload, Payloads,
    SaRepr,
};

/// A well-formed IKE_SA_INIT request.
#[derive(Clone, Copy)]
pub(crate) struct InitRequest<'a> {
    pub(crate) header: HeaderRepr,
    pub(crate) path: Path,
    /// The whole message.
    pub(crate) bytes: &'a [u8],
    pub(crate) payloads: &'a Payloads<'a>,
}

impl IkeSa {
    /// Answers a request with a half-open IKE SA, whose SPI is `local_spi`.
    ///
    /// # Errors
    /// INVALID_KE_PAYLOAD, or a KE payload that no honest peer sends; library failures.
    pub(crate) fn respond_to_init(
        config: &Config,
        crypto: &dyn CryptoProvider,
        request: InitRequest<'_>,
        chosen: &Chosen<IkeProposal>,
        local_spi: [u8; 8],
        now: Instant,
    ) -> Result<Self, IkeError> {
        let proposal = chosen.suite;
        let nonce_i = request.payloads.require_nonce()?.data;
        let ke_i = request.payloads.require_ke()?;
        if ke_i.method != proposal.ke.transform_id() {
            // RFC 7296 §1.2: "the responder indicates its preferred group".
            return Err(PolicyError::InvalidKePayload {
                got: ke_i.method,
                wanted: proposal.ke,
            }
            .into());
        }
        // Which connection it is to be only IKE_AUTH tells.
        let candidates = config.candidates(request.path.local.ip(), request.path.remote.ip());
        let wants = |announced: &dyn Fn(&Transport) -> bool| {
            candidates.iter().any(|c| announced(&c.transport))
        };
        let remote_spi = request.header.initiator_spi;
        let nonce_r = draw_nonce(crypto);
        let (nonces, spis) = ((nonce_i, &nonce_r[..]), (&remote_spi, &local_spi));
        let (keys, public) = agree(crypto, proposal, ke_i.data, nonces, spis)?;
        let header = HeaderRepr {
            responder_spi: local_spi,
            ..request.header.to_response()
        };
        let ke_r = KeRepr {
            method: proposal.ke.transform_id(),
            data: &public,
        };
        let mut response = MessageBuilder::new(header);
        response
            .push(&Payload::Sa(SaRepr {
                // RFC 7296 §3.3.1: in IKE_SA_INIT the proposal has no SPI.
                proposals: vec![chosen.answer(&[])],
            }))
            .push(&Payload::Ke(ke_r))
            .push(&Payload::Nonce(NonceRepr { data: &nonce_r }));
        let detected = nat::detect(crypto, request.payloads, &request.header, request.path);
        // The most specific connection decides, as it does on the proposals.
        let forced_encap =
            detected.is_some() && candidates.first().is_some_and(|c| c.transport.encap);
        if detected.is_some() {
            nat::announce(crypto, &mut response, &header, request.path, forced_encap);
        }
        let fragments = request
            .payloads
            .has_notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)
            && wants(&|transport| transport.fragmentation.is_announced());
        if fragments {
            response.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
                &[],
            )));
        }
        if !proposal.additional.is_empty() {
            // RFC 9242 §3.1; the peer announced it, or the suite would not have been chosen.
            response.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
                &[],
            )));
        }
        // RFC 6023 §3: "A supporting responder MUST include the Notify payload".
        if wants(&|transport| transport.childless != Childless::Never) {
            response.push(&Payload::Notify(NotifyRepr::new(
                NotifyType::CHILDLESS_IKEV2_SUPPORTED,
                &[],
            )));
        }
        let connections: Vec<_> = candidates.iter().map(|c| &***c).collect();
        let ppk = announce(&mut response, crypto, &connections, Some(request.payloads));
        let response = response.finish()?;
        Ok(Self {
            local_spi,
            remote_spi,
            role: Role::Responder,
            slot: Slot::for_negotiation(
                &Address::from(request.path.remote.ip()).octets,
                &remote_spi,
            ),
            path: request.path,
            nat: detected.unwrap_or_default(),
            announced: false,
            began: Some(now),
            proposal,
            keys,
            ivs: fresh_ivs(config),
            // RFC 7296 §2.2: IKE_SA_INIT was Message ID 0.
            window: Window::resume(1, None),
            transport: TransportState {
                fragments,
                forced_encap,
                redirectable: is_redirectable(request.payloads),
                ..TransportState::default()
            },
            incoming: Incoming::default(),
            state: State::ExpectAuth(Box::new(ExpectAuth::new(
                Transcript {
                    request: request.bytes.into(),
                    response: response.into(),
                    nonce_i: nonce_i.into(),
                    nonce_r: nonce_r.into(),
                    int_auth: Vec::new(),
                    announced: Announced::from_init(request.payloads, ppk),
                },
                Intermediate::of(&proposal),
            ))),
        })
    }
}

/// Our public value, and the keys that follow from it (RFC 7296 §2.14).
fn agree(
    crypto: &dyn CryptoProvider,
    proposal: IkeProposal,
    peer: &[u8],
    nonces: (&[u8], &[u8]),
    spis: (&[u8; 8], &[u8; 8]),
) -> Result<(IkeKeys, Vec<u8>), IkeError> {
    let ours = crypto.answer_key_exchange(proposal.ke, peer)?;
    let (prf, encryption) = (proposal.prf, proposal.encryption);
    let skeyseed = Skeyseed::initial(crypto, prf, nonces.0, nonces.1, &ours.shared);
    let keys = IkeKeys::derive(crypto, prf, encryption, &skeyseed, nonces, spis)?;
    Ok((keys, ours.public))
}
