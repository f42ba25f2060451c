//! REDIRECT (RFC 5685): sending peers to another gateway.

use std::net::IpAddr;
use std::sync::Arc;

use gateway_common::time::Instant;

use super::initiate::Task;
use super::{Clock, IkeSa};
use crate::config::{ChildConfig, Gateway};
use crate::endpoint::core::Core;
use crate::output::EventKind;
use crate::wire::{Body, Message, NotifyType, Payloads};

/// GW Ident Types (RFC 5685 §9.2).
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

/// The content of a REDIRECT (RFC 5685 §9.2). `nonce` is that of the IKE_SA_INIT request, and empty in
/// every other exchange.
pub(crate) fn redirect_data(gateway: &Gateway, nonce: &[u8]) -> Vec<u8> {
    let (kind, identity) = match gateway {
        Gateway::Address(IpAddr::V4(v4)) => (IPV4, v4.octets().to_vec()),
        Gateway::Address(IpAddr::V6(v6)) => (IPV6, v6.octets().to_vec()),
        Gateway::Fqdn(name) => (FQDN, name.as_bytes().to_vec()),
    };
    // The configuration does not take longer names.
    let length = u8::try_from(identity.len()).unwrap_or(u8::MAX);
    let identity = identity.get(..usize::from(length)).unwrap_or_default();
    [&[kind, length], identity, nonce].concat()
}

/// The gateway in a REDIRECT or REDIRECTED_FROM, and what follows it.
pub(crate) fn parse_redirect(data: &[u8]) -> Option<(Gateway, &[u8])> {
    let (&[kind, length], rest) = data.split_first_chunk()?;
    let (identity, rest) = rest.split_at_checked(usize::from(length))?;
    let gateway = match kind {
        IPV4 => Gateway::Address(IpAddr::from(<[u8; 4]>::try_from(identity).ok()?)),
        IPV6 => Gateway::Address(IpAddr::from(<[u8; 16]>::try_from(identity).ok()?)),
        FQDN => {
            let name = std::str::from_utf8(identity).ok()?;
            let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if name.is_empty() || !name.chars().all(good) {
                return None;
            }
            Gateway::Fqdn(name.to_owned())
        }
        _ => return None,
    };
    Some((gateway, rest))
}

/// Whether the sender of an IKE_SA_INIT request can be redirected, and whence it was already
/// (RFC 5685 §3: REDIRECTED_FROM says as much as REDIRECT_SUPPORTED).
pub(crate) fn is_redirectable(payloads: &Payloads<'_>) -> bool {
    payloads.has_notify(NotifyType::REDIRECT_SUPPORTED)
        || payloads.has_notify(NotifyType::REDIRECTED_FROM)
}

/// The gateway that sent the peer here.
pub(crate) fn redirected_from(payloads: &Payloads<'_>) -> Option<Gateway> {
    let notify = payloads.notify(NotifyType::REDIRECTED_FROM)?;
    Some(parse_redirect(notify.data)?.0)
}

/// The same, of the request's octets.
pub(super) fn redirected_from_init(request: &[u8]) -> Option<Gateway> {
    let message = Message::parse(request).ok()?;
    let Body::Clear(chain) = message.body() else {
        return None;
    };
    redirected_from(&Payloads::parse(chain.clone()).ok()?)
}

impl IkeSa {
    /// Asks the peer to go to another gateway (RFC 5685 §5). `false` if it cannot be redirected.
    pub(crate) fn redirect(&mut self, gateway: Gateway) -> bool {
        if self.transport.redirectable {
            self.add_task(Task::Redirect(gateway));
        }
        self.transport.redirectable
    }

    /// The gateway that the authenticated peer sends us to, if we initiated and want to be sent
    /// (RFC 5685 §5, §6).
    pub(super) fn take_redirect(&self, payloads: &Payloads<'_>) -> Option<Gateway> {
        let connection = &self.established()?.connection;
        let may = self.transport.original_initiator && connection.transport.follow_redirects;
        let notify = payloads.notify(NotifyType::REDIRECT).filter(|_| may)?;
        let (gateway, rest) = parse_redirect(notify.data)?;
        // "It MUST NOT be included": a nonce belongs into IKE_SA_INIT.
        rest.is_empty().then_some(gateway)
    }

    /// The configured children that there are, or will be.
    pub(crate) fn configured_children(&self) -> Vec<Arc<ChildConfig>> {
        let Some(established) = self.established() else {
            return Vec::new();
        };
        let wanted = established.wanted_children();
        let has = |name: &String| {
            established
                .children
                .iter()
                .any(|child| child.sa.name == *name)
                || wanted.contains(name)
        };
        let configured = established.connection.children.iter();
        configured
            .filter(|child| has(&child.name))
            .cloned()
            .collect()
    }

    /// The peer knows where to go. It closes this IKE SA (RFC 5685 §5, §6); if it does not in time,
    /// we do.
    pub(super) fn redirected(&mut self, core: &mut Core, now: Instant) {
        core.counters.redirects_sent += 1;
        let deadline = now + core.config.limits.replaced_timeout;
        self.set_clock(core, Clock::Replaced, deadline);
    }

    /// The gateway that IKE_AUTH sends the peer to.
    pub(super) fn redirect_in_auth(&self, core: &mut Core, gateway: &Gateway) -> Vec<u8> {
        let reason = format!("the peer is redirected to {gateway}");
        self.event(core, EventKind::ExchangeFailed { reason });
        redirect_data(gateway, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_gateway_comes_back() {
        for gateway in [
            Gateway::Address("192.0.2.1".parse().unwrap()),
            Gateway::Address("2001:db8::1".parse().unwrap()),
            Gateway::Fqdn("gw2.example.org".to_owned()),
        ] {
            let data = redirect_data(&gateway, b"nonce");
            assert_eq!(parse_redirect(&data), Some((gateway, &b"nonce"[..])));
        }
        assert_eq!(
            redirect_data(&Gateway::Fqdn("a.b".into()), &[]),
            b"\x03\x03a.b"
        );
    }

    #[test]
    fn nonsense_is_no_gateway() {
        for data in [
            &b""[..],
            b"\x01",
            b"\x01\x04\xc0\x00\x02",
            b"\x01\x05\xc0\x00\x02\x01\x01",
            b"\x02\x04\xc0\x00\x02\x01",
            b"\x03\x00",
            b"\x03\x03a b",
            b"\x03\x02\xff\xfe",
            b"\x04\x01a",
        ] {
            assert_eq!(parse_redirect(data), None, "{data:02x?}");
        }
    }
}
