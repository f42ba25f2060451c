//! Making one CHILD_SA, whichever exchange asks for it (RFC 7296 §1.2, §1.3.1, §1.3.3).

use std::net::IpAddr;
use std::sync::Arc;

use gateway_common::time::Instant;

use super::clock::{draw_quota, jitter};
use super::follow_up::unkeyed;
use super::{Child, Establishment, IkeSa, Pending, Request, Step};
use crate::config::{ChildConfig, Connection};
use crate::crypto::KeyExchangeMethod;
use crate::endpoint::core::Core;
use crate::endpoint::spi::FIRST_ESP_SPI;
use crate::error::{IkeError, LocalError, PeerError, PolicyError};
use crate::output::{ChildId, ChildSa, KernelRequest, Path};
use crate::proposal::{Chosen, EspExchange, EspProposal, select_esp};
use crate::record::{ChildState, FollowUp, KeyInputs, Purpose, Rival, Role, Settled};
use crate::secret::SecretBytes;
use crate::selector::{Narrowed, narrow_both};
use crate::wire::{
    KeRepr, MessageBuilder, NonceRepr, NotifyType, Payload, Payloads, SaRepr, TsRepr, WireError,
};

/// A request for a CHILD_SA.
pub(super) struct ChildRequest<'a> {
    pub(super) sa: &'a SaRepr,
    pub(super) ts_i: &'a TsRepr,
    pub(super) ts_r: &'a TsRepr,
    pub(super) nonce_i: &'a [u8],
    pub(super) nonce_r: &'a [u8],
    /// A key exchange of its own; never in IKE_AUTH.
    pub(super) ke: Option<KeRepr<'a>>,
    /// IKE_AUTH has no nonces and no key exchange of the CHILD_SA's own.
    pub(super) in_auth: bool,
    /// Our outbound SPI of the CHILD_SA that it replaces.
    pub(super) rekeys: Option<[u8; 4]>,
}

/// What was agreed on.
struct Agreement {
    config: Arc<ChildConfig>,
    traffic: Narrowed,
    chosen: Chosen<EspProposal>,
    /// Our outbound SPI.
    spi_out: [u8; 4],
}

impl<'a> ChildRequest<'a> {
    /// The CHILD_SA that IKE_AUTH asks for: SA and both TS payloads, or none of them (RFC 6023).
    pub(super) fn in_auth(
        payloads: &'a Payloads<'_>,
        nonces: &'a (Box<[u8]>, Box<[u8]>),
    ) -> Result<Option<Self>, IkeError> {
        match (&payloads.sa, &payloads.ts_initiator, &payloads.ts_responder) {
            (None, None, None) => Ok(None),
            (Some(sa), Some(ts_i), Some(ts_r)) => Ok(Some(Self {
                sa,
                ts_i,
                ts_r,
                nonce_i: &nonces.0,
                nonce_r: &nonces.1,
                ke: None,
                in_auth: true,
                rekeys: None,
            })),
            _ => Err(PeerError::Syntax("SA, TSi and TSr come together or not at all").into()),
        }
    }

    /// The one that CREATE_CHILD_SA asks for.
    pub(super) fn in_create(
        payloads: &'a Payloads<'_>,
        nonce_r: &'a [u8],
        rekeys: Option<[u8; 4]>,
    ) -> Result<Self, WireError> {
        Ok(Self {
            sa: payloads.require_sa()?,
            ts_i: payloads.require_ts_initiator()?,
            ts_r: payloads.require_ts_responder()?,
            nonce_i: payloads.require_nonce()?.data,
            nonce_r,
            ke: payloads.ke,
            in_auth: false,
            rekeys,
        })
    }
}

impl IkeSa {
    /// Negotiates a CHILD_SA and asks the kernel for it, or answers and waits for additional key
    /// exchanges. `base` is the beginning of the answer.
    ///
    /// # Errors
    /// Then nothing was changed and nothing was asked.
    pub(super) fn create_child(
        &mut self,
        core: &mut Core,
        now: Instant,
        request: Request,
        child: &ChildRequest<'_>,
        base: MessageBuilder,
        establishes: Option<Establishment>,
    ) -> Result<Step, IkeError> {
        let established = self
            .established()
            .ok_or(PeerError::Syntax("CHILD_SA before authentication"))?;
        let replaced = match child.rekeys {
            Some(spi) => Some(established.child_to_rekey(spi)?),
            None if established.children_to_come() >= core.config.limits.children_per_ike_sa => {
                return Err(PolicyError::NoAdditionalSas("the limit per IKE SA is reached").into());
            }
            None => None,
        };
        let agreement = agree(
            &established.connection,
            child,
            replaced.map(|c| &*c.sa.name),
            self.path.ends(),
        )?;
        let additional = agreement.chosen.suite.additional;
        if !additional.is_empty() {
            established.may_wait(&core.config.limits)?;
        }
        let replaces = replaced.map(|child| child.sa.id());
        let (shared, ke_r) = key_exchange(core, &agreement.chosen, child.ke)?;
        let sa = Box::new(self.reserve_child(core, &agreement)?);

        let mut installed = base.clone();
        installed.push(&Payload::Sa(SaRepr {
            proposals: vec![agreement.chosen.answer(&sa.spi_in)],
        }));
        if !child.in_auth {
            installed.push(&Payload::Nonce(NonceRepr {
                data: child.nonce_r,
            }));
        }
        if let Some(data) = &ke_r {
            let method = agreement
                .chosen
                .suite
                .ke
                .map_or(0, KeyExchangeMethod::transform_id);
            installed.push(&Payload::Ke(KeRepr { method, data }));
        }
        installed
            .push(&Payload::TsInitiator(TsRepr {
                selectors: sa.remote_ts.clone(),
            }))
            .push(&Payload::TsResponder(TsRepr {
                selectors: sa.local_ts.clone(),
            }));
        let inputs = KeyInputs {
            nonces: (child.nonce_i.to_vec(), child.nonce_r.to_vec()),
            shared: shared.into_iter().collect(),
        };
        let rekeys = replaces.map(|old| old.spi_in);
        self.note_rival(replaces, sa.spi_in, inputs.lowest_nonce());
        self.supersede_rekeying(core, rekeys);
        if !additional.is_empty() {
            let follow_up = FollowUp {
                settled: Settled::Child { sa, rekeys },
                inputs,
                pending: additional.iter().collect(),
            };
            let answer = (request, installed);
            return Ok(self.await_follow_up(core, now, answer, follow_up));
        }
        let pending = Box::new(Pending {
            request,
            child: Box::new(self.finish_child(core, Role::Responder, &sa, &inputs)?),
            replaces,
            lost: false,
            installed,
            refused: base,
            deadline: now + core.config.limits.kernel_timeout,
            establishes,
        });
        self.ask_kernel(core, pending);
        Ok(Step::Waiting)
    }

    /// RFC 7296 §2.23: with a NAT between, ESP goes in UDP, from and to the ports that IKE uses. On
    /// port 500 there is no telling it from IKE, so then there is none.
    pub(super) fn encap(&self, path: Path) -> Option<(u16, u16)> {
        let (local, remote) = (path.local.port(), path.remote.port());
        let wanted = self.nat.any() || self.transport.forced_encap;
        (wanted && local != crate::wire::PORT_IKE).then_some((local, remote))
    }

    /// RFC 7296 §2.8.1: both rekey the same CHILD_SA. "It will just note the situation and respond
    /// as usual."
    fn note_rival(&mut self, replaces: Option<ChildId>, spi: [u8; 4], lowest_nonce: &[u8]) {
        let outstanding = self
            .established_mut()
            .and_then(|e| e.outstanding.as_deref_mut());
        if let Some(outstanding) = outstanding
            && let Purpose::Child(offer) = &mut outstanding.request.purpose
            && let Some(old) = replaces
            && offer.rekeys == Some(old.spi_in)
        {
            offer.rival = Some(Rival {
                spi,
                lowest_nonce: lowest_nonce.to_vec(),
            });
        }
    }

    /// A child that the kernel has just confirmed. Its soft lifetime has jitter, so that the two
    /// sides do not rekey at the same time (RFC 7296 §2.8).
    pub(super) fn new_child(&mut self, core: &mut Core, now: Instant, mut sa: ChildSa) -> Child {
        let here = self.encap(self.path);
        if self.transport.mobike {
            self.catch_up_later(&sa);
        } else if !self.nat.local && sa.encap.is_some() && here.is_some() {
            // The NAT may have moved the peer while the kernel was busy.
            let remote = self.path.remote.ip();
            if sa.encap != here || sa.remote != remote {
                (sa.encap, sa.remote) = (here, remote);
                core.out.kernel(KernelRequest::Update {
                    child: Box::new(sa.clone()),
                });
            }
        }
        let config = self
            .established()
            .and_then(|e| e.connection.children.iter().find(|c| c.name == sa.name));
        let rekey_at = config
            .filter(|config| !config.rekey_time.is_zero())
            .map(|config| {
                let early = jitter(&*core.crypto, config.rand_time);
                now + config.rekey_time.saturating_sub(early)
            });
        Child {
            rekey_at,
            ..Child::installed(now, sa)
        }
    }

    pub(super) fn ask_kernel(&mut self, core: &mut Core, pending: Box<Pending>) {
        core.await_kernel(self.local_spi, &pending);
        core.out.kernel(KernelRequest::Install {
            child: pending.child.clone(),
            replaces: pending.replaces,
        });
        self.window.begin();
        if let Some(established) = self.established_mut() {
            established.pending = Some(pending);
        }
    }

    /// Draws our SPI. The keys are still missing.
    fn reserve_child(&self, core: &mut Core, agreement: &Agreement) -> Result<ChildSa, IkeError> {
        let suite = agreement.chosen.suite;
        // RFC 4555 §3.3: from the IKE SA, not from the header of the request.
        let (local, remote) = (self.path.local, self.path.remote);
        let spi_in = core
            .esp_spis
            .draw(&*core.crypto, core.config.member, self.local_spi)
            .ok_or(LocalError::NoSpi)?;
        let config = &agreement.config;
        Ok(ChildSa {
            name: config.name.clone(),
            connection: self.connection_name().unwrap_or_default(),
            slot: self.slot,
            spi_in,
            spi_out: agreement.spi_out,
            local: local.ip(),
            remote: remote.ip(),
            encap: self.encap(self.path),
            encryption: suite.encryption,
            key_in: unkeyed(suite.encryption),
            key_out: unkeyed(suite.encryption),
            esn: suite.esn,
            replay_window: config.replay_window,
            local_ts: agreement.traffic.local.clone(),
            remote_ts: agreement.traffic.remote.clone(),
            if_id_in: config.if_id_in,
            if_id_out: config.if_id_out,
            marks: config.marks,
            hard_lifetime_seconds: config.life_time.as_secs(),
            quota: draw_quota(&*core.crypto, config.volume),
        })
    }
}

impl super::Established {
    /// The child that the peer wants to rekey. RFC 7296 §2.25.1: not one that we are closing.
    fn child_to_rekey(&self, spi: [u8; 4]) -> Result<&Child, PolicyError> {
        let makes_one = self
            .outstanding
            .as_ref()
            .is_some_and(|o| matches!(o.request.purpose, Purpose::Child(_)));
        let child = match self.child_by_outbound(spi) {
            Ok(child) => child,
            // Perhaps the one that we have asked for, whose response is late.
            Err(PolicyError::ChildSaNotFound { .. }) if makes_one => {
                return Err(PolicyError::TemporaryFailure(
                    "no such CHILD_SA, but one is being made",
                ));
            }
            Err(error) => return Err(error),
        };
        // Our own rekeying of it has been answered, so the peer knows that it has lost or has not
        // taken part.
        let follows_up = self.outstanding.as_ref().is_some_and(|o| {
            matches!(&o.request.purpose, Purpose::Child(offer)
                if offer.follow_up.is_some() && offer.rekeys == Some(child.sa.spi_in))
        });
        match child.state {
            _ if follows_up => Err(PolicyError::TemporaryFailure(
                "this CHILD_SA is being rekeyed, with additional key exchanges",
            )),
            ChildState::Closing => Err(PolicyError::TemporaryFailure(
                "this CHILD_SA is being closed",
            )),
            ChildState::Current | ChildState::Replaced => Ok(child),
        }
    }

    /// The child that the peer names by its own inbound SPI.
    pub(super) fn child_by_outbound(&self, spi: [u8; 4]) -> Result<&Child, PolicyError> {
        self.children
            .iter()
            .find(|child| child.sa.spi_out == spi)
            .ok_or(PolicyError::ChildSaNotFound { spi })
    }
}

/// Finds the first configured child that fits; of several that do not, the one that came furthest
/// says why. A rekeyed child only fits its own configuration.
fn agree(
    connection: &Connection,
    child: &ChildRequest<'_>,
    name: Option<&str>,
    ends: (IpAddr, IpAddr),
) -> Result<Agreement, IkeError> {
    let mut failure = None;
    let mut candidates = connection
        .children
        .iter()
        .filter(|config| name.is_none_or(|name| name == config.name))
        .peekable();
    if candidates.peek().is_none() {
        return Err(PolicyError::NoAdditionalSas("the connection has no such child").into());
    }
    for config in candidates {
        let (local_ts, remote_ts) = config.selectors(ends);
        let traffic = narrow_both(
            (&local_ts, &remote_ts),
            (&child.ts_r.selectors, &child.ts_i.selectors),
        );
        let error = match traffic {
            Ok(traffic) => match choose(config, child) {
                Ok((chosen, spi_out)) => {
                    return Ok(Agreement {
                        config: Arc::clone(config),
                        traffic,
                        chosen,
                        spi_out,
                    });
                }
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        let came_further = matches!(error, PolicyError::NoProposalChosen { .. });
        if failure.is_none() || came_further {
            failure = Some(error);
        }
    }
    Err(failure
        .unwrap_or(PolicyError::NoAdditionalSas("the connection has no child"))
        .into())
}

/// The suite, and the SPI that the peer expects in its inbound packets. Those below 256 are reserved
/// (RFC 4303 §2.1), and the kernel would refuse them.
fn choose(
    config: &ChildConfig,
    child: &ChildRequest<'_>,
) -> Result<(Chosen<EspProposal>, [u8; 4]), PolicyError> {
    let exchange = if child.in_auth {
        EspExchange::IkeAuth
    } else {
        EspExchange::CreateChildSa
    };
    let chosen = select_esp(&child.sa.proposals, &config.esp_proposals, exchange)?;
    match <[u8; 4]>::try_from(chosen.peer_spi.as_slice()) {
        Ok(spi) if u32::from_be_bytes(spi) >= FIRST_ESP_SPI => Ok((chosen, spi)),
        _ => Err(PolicyError::NoProposalChosen {
            offered: "a reserved SPI".to_owned(),
            configured: format!("SPIs from {FIRST_ESP_SPI} on"),
        }),
    }
}

/// A key exchange of the CHILD_SA's own, if the chosen proposal has one: g^ir and our public value.
fn key_exchange(
    core: &Core,
    chosen: &Chosen<EspProposal>,
    ke: Option<KeRepr<'_>>,
) -> Result<(Option<SecretBytes>, Option<Vec<u8>>), IkeError> {
    let Some(method) = chosen.suite.ke else {
        return Ok((None, None));
    };
    let (shared, public) = super::exchange::agree_on(core, method, ke)?;
    Ok((Some(shared), Some(public)))
}

/// The CHILD_SA that a REKEY_SA notification names (RFC 7296 §1.3.3): by the SPI that the peer
/// expects in its inbound packets. Other protocols than ESP have no CHILD_SA here.
pub(super) fn rekeyed(payloads: &Payloads<'_>) -> Result<Option<[u8; 4]>, IkeError> {
    let Some(notify) = payloads.notify(NotifyType::REKEY_SA) else {
        return Ok(None);
    };
    match notify.esp_spi() {
        Some(spi) => Ok(Some(spi)),
        None => match notify.spi.try_into() {
            Ok(spi) => Err(PolicyError::ChildSaNotFound { spi }.into()),
            Err(_) => Err(PeerError::Syntax("REKEY_SA without SPI").into()),
        },
    }
}
