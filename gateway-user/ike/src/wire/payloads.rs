//! The payloads of one message, by type.

use super::{
    AuthRepr, CertRepr, CertReqRepr, Chain, DeleteRepr, IdRepr, KeRepr, NonceRepr, NotifyRepr,
    NotifyType, OpaqueRepr, Payload, PayloadType, SaRepr, TsRepr, VendorIdRepr, WireError,
};

/// All payloads of a chain, parsed. At most one of each type, except those that RFC 7296 lets a
/// message repeat: CERT, CERTREQ, Notify, Delete, Vendor ID. Order does not matter
/// (RFC 7296 §2.5). Unknown payloads that are not critical are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads<'a> {
    /// Security Association.
    pub sa: Option<SaRepr>,
    /// Key Exchange.
    pub ke: Option<KeRepr<'a>>,
    /// Identification, initiator.
    pub id_initiator: Option<IdRepr<'a>>,
    /// Identification, responder.
    pub id_responder: Option<IdRepr<'a>>,
    /// Authentication.
    pub auth: Option<AuthRepr<'a>>,
    /// Nonce.
    pub nonce: Option<NonceRepr<'a>>,
    /// Traffic selectors, initiator.
    pub ts_initiator: Option<TsRepr>,
    /// Traffic selectors, responder.
    pub ts_responder: Option<TsRepr>,
    /// Configuration.
    pub config: Option<OpaqueRepr<'a>>,
    /// Extensible Authentication.
    pub eap: Option<OpaqueRepr<'a>>,
    /// Certificates, the end entity's first.
    pub certs: Vec<CertRepr<'a>>,
    /// Certificate requests.
    pub cert_requests: Vec<CertReqRepr<'a>>,
    /// Notifications.
    pub notifies: Vec<NotifyRepr<'a>>,
    /// Deletions.
    pub deletes: Vec<DeleteRepr<'a>>,
    /// Vendor ids.
    pub vendor_ids: Vec<VendorIdRepr<'a>>,
}

impl<'a> Payloads<'a> {
    /// Parses a chain without Encrypted payload, or one that was inside it.
    ///
    /// # Errors
    /// Those of the payloads; [`WireError::Duplicate`]; [`WireError::Misplaced`] for an SK or SKF
    /// payload, since this is where there must be none.
    pub fn parse(chain: Chain<'a>) -> Result<Self, WireError> {
        let mut payloads = Self::default();
        for raw in chain {
            if raw.kind.is_encrypted() {
                return Err(WireError::Misplaced(raw.kind));
            }
            payloads.insert(Payload::parse(&raw)?)?;
        }
        Ok(payloads)
    }

    fn insert(&mut self, payload: Payload<'a>) -> Result<(), WireError> {
        let kind = payload.payload_type();
        match payload {
            Payload::Sa(repr) => once(kind, &mut self.sa, repr),
            Payload::Ke(repr) => once(kind, &mut self.ke, repr),
            Payload::IdInitiator(repr) => once(kind, &mut self.id_initiator, repr),
            Payload::IdResponder(repr) => once(kind, &mut self.id_responder, repr),
            Payload::Auth(repr) => once(kind, &mut self.auth, repr),
            Payload::Nonce(repr) => once(kind, &mut self.nonce, repr),
            Payload::TsInitiator(repr) => once(kind, &mut self.ts_initiator, repr),
            Payload::TsResponder(repr) => once(kind, &mut self.ts_responder, repr),
            Payload::Config(repr) => once(kind, &mut self.config, repr),
            Payload::Eap(repr) => once(kind, &mut self.eap, repr),
            Payload::Cert(repr) => many(&mut self.certs, repr),
            Payload::CertReq(repr) => many(&mut self.cert_requests, repr),
            Payload::Notify(repr) => many(&mut self.notifies, repr),
            Payload::Delete(repr) => many(&mut self.deletes, repr),
            Payload::VendorId(repr) => many(&mut self.vendor_ids, repr),
            Payload::Unknown(..) => Ok(()),
        }
    }

    /// The first notification of a type.
    pub fn notify(&self, kind: NotifyType) -> Option<&NotifyRepr<'a>> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }

    /// Whether there is a notification of a type.
    pub fn has_notify(&self, kind: NotifyType) -> bool {
        self.notify(kind).is_some()
    }

    /// The first notification that reports an error.
    pub fn error_notify(&self) -> Option<&NotifyRepr<'a>> {
        self.notifies.iter().find(|notify| notify.kind.is_error())
    }

    /// The SA payload, or [`WireError::Missing`].
    pub fn require_sa(&self) -> Result<&SaRepr, WireError> {
        self.sa.as_ref().ok_or(WireError::Missing(PayloadType::SA))
    }

    /// The KE payload, or [`WireError::Missing`].
    pub fn require_ke(&self) -> Result<KeRepr<'a>, WireError> {
        self.ke.ok_or(WireError::Missing(PayloadType::KE))
    }

    /// The nonce, or [`WireError::Missing`].
    pub fn require_nonce(&self) -> Result<NonceRepr<'a>, WireError> {
        self.nonce.ok_or(WireError::Missing(PayloadType::NONCE))
    }

    /// The initiator's identity, or [`WireError::Missing`].
    pub fn require_id_initiator(&self) -> Result<IdRepr<'a>, WireError> {
        self.id_initiator
            .ok_or(WireError::Missing(PayloadType::IDI))
    }

    /// The responder's identity, or [`WireError::Missing`].
    pub fn require_id_responder(&self) -> Result<IdRepr<'a>, WireError> {
        self.id_responder
            .ok_or(WireError::Missing(PayloadType::IDR))
    }

    /// The AUTH payload, or [`WireError::Missing`].
    pub fn require_auth(&self) -> Result<AuthRepr<'a>, WireError> {
        self.auth.ok_or(WireError::Missing(PayloadType::AUTH))
    }

    /// The initiator's selectors, or [`WireError::Missing`].
    pub fn require_ts_initiator(&self) -> Result<&TsRepr, WireError> {
        self.ts_initiator
            .as_ref()
            .ok_or(WireError::Missing(PayloadType::TSI))
    }

    /// The responder's selectors, or [`WireError::Missing`].
    pub fn require_ts_responder(&self) -> Result<&TsRepr, WireError> {
        self.ts_responder
            .as_ref()
            .ok_or(WireError::Missing(PayloadType::TSR))
    }
}

fn once<T>(kind: PayloadType, slot: &mut Option<T>, value: T) -> Result<(), WireError> {
    if slot.is_some() {
        return Err(WireError::Duplicate(kind));
    }
    *slot = Some(value);
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the same shape as `once`")]
fn many<T>(list: &mut Vec<T>, value: T) -> Result<(), WireError> {
    list.push(value);
    Ok(())
}
