//! A payload of any type.

use super::{
    AuthPacket, AuthRepr, CertPacket, CertRepr, CertReqRepr, DeletePacket, DeleteRepr, EncodeError,
    IdPacket, IdRepr, KePacket, KeRepr, NoncePacket, NonceRepr, NotifyPacket, NotifyRepr,
    OpaqueRepr, PayloadType, RawPayload, SaPacket, SaRepr, TsPacket, TsRepr, VendorIdRepr,
    WireError,
};

/// A parsed payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Security Association.
    Sa(SaRepr),
    /// Key Exchange.
    Ke(KeRepr<'a>),
    /// Identification, initiator.
    IdInitiator(IdRepr<'a>),
    /// Identification, responder.
    IdResponder(IdRepr<'a>),
    /// Certificate.
    Cert(CertRepr<'a>),
    /// Certificate Request.
    CertReq(CertReqRepr<'a>),
    /// Authentication.
    Auth(AuthRepr<'a>),
    /// Nonce.
    Nonce(NonceRepr<'a>),
    /// Notify.
    Notify(NotifyRepr<'a>),
    /// Delete.
    Delete(DeleteRepr<'a>),
    /// Vendor ID.
    VendorId(VendorIdRepr<'a>),
    /// Traffic selectors, initiator.
    TsInitiator(TsRepr),
    /// Traffic selectors, responder.
    TsResponder(TsRepr),
    /// Configuration, not looked into.
    Config(OpaqueRepr<'a>),
    /// Extensible Authentication, not looked into.
    Eap(OpaqueRepr<'a>),
    /// One that we do not know and that is not critical. Also what SK and SKF are outside their
    /// place.
    Unknown(PayloadType, OpaqueRepr<'a>),
}

impl<'a> Payload<'a> {
    /// Parses one payload of a chain.
    pub fn parse(raw: &RawPayload<'a>) -> Result<Self, WireError> {
        let RawPayload { kind, body, .. } = *raw;
        Ok(match kind {
            PayloadType::SA => Self::Sa(SaRepr::parse(&SaPacket::new_checked(body)?)?),
            PayloadType::KE => Self::Ke(KeRepr::parse(&KePacket::new_checked(body)?)?),
            PayloadType::IDI => {
                Self::IdInitiator(IdRepr::parse(kind, &IdPacket::new_checked(kind, body)?)?)
            }
            PayloadType::IDR => {
                Self::IdResponder(IdRepr::parse(kind, &IdPacket::new_checked(kind, body)?)?)
            }
            PayloadType::CERT => {
                Self::Cert(CertRepr::parse(&CertPacket::new_checked(kind, body)?)?)
            }
            PayloadType::CERTREQ => {
                Self::CertReq(CertReqRepr::parse(&CertPacket::new_checked(kind, body)?)?)
            }
            PayloadType::AUTH => Self::Auth(AuthRepr::parse(&AuthPacket::new_checked(body)?)?),
            PayloadType::NONCE => Self::Nonce(NonceRepr::parse(&NoncePacket::new_checked(body)?)?),
            PayloadType::NOTIFY => {
                Self::Notify(NotifyRepr::parse(&NotifyPacket::new_checked(body)?)?)
            }
            PayloadType::DELETE => {
                Self::Delete(DeleteRepr::parse(&DeletePacket::new_checked(body)?)?)
            }
            PayloadType::VENDOR => Self::VendorId(VendorIdRepr::parse(body)),
            PayloadType::TSI => {
                Self::TsInitiator(TsRepr::parse(&TsPacket::new_checked(kind, body)?)?)
            }
            PayloadType::TSR => {
                Self::TsResponder(TsRepr::parse(&TsPacket::new_checked(kind, body)?)?)
            }
            PayloadType::CP => Self::Config(OpaqueRepr::parse(body)),
            PayloadType::EAP => Self::Eap(OpaqueRepr::parse(body)),
            _ => Self::Unknown(kind, OpaqueRepr::parse(body)),
        })
    }

    /// Its type.
    pub const fn payload_type(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::Ke(_) => PayloadType::KE,
            Self::IdInitiator(_) => PayloadType::IDI,
            Self::IdResponder(_) => PayloadType::IDR,
            Self::Cert(_) => PayloadType::CERT,
            Self::CertReq(_) => PayloadType::CERTREQ,
            Self::Auth(_) => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify(_) => PayloadType::NOTIFY,
            Self::Delete(_) => PayloadType::DELETE,
            Self::VendorId(_) => PayloadType::VENDOR,
            Self::TsInitiator(_) => PayloadType::TSI,
            Self::TsResponder(_) => PayloadType::TSR,
            Self::Config(_) => PayloadType::CP,
            Self::Eap(_) => PayloadType::EAP,
            Self::Unknown(kind, _) => *kind,
        }
    }

    /// Octets of the body, without generic header.
    pub fn buffer_len(&self) -> usize {
        match self {
            Self::Sa(repr) => repr.buffer_len(),
            Self::Ke(repr) => repr.buffer_len(),
            Self::IdInitiator(repr) | Self::IdResponder(repr) => repr.buffer_len(),
            Self::Cert(repr) => repr.buffer_len(),
            Self::CertReq(repr) => repr.buffer_len(),
            Self::Auth(repr) => repr.buffer_len(),
            Self::Nonce(repr) => repr.buffer_len(),
            Self::Notify(repr) => repr.buffer_len(),
            Self::Delete(repr) => repr.buffer_len(),
            Self::VendorId(repr) => repr.buffer_len(),
            Self::TsInitiator(repr) | Self::TsResponder(repr) => repr.buffer_len(),
            Self::Config(repr) | Self::Eap(repr) | Self::Unknown(_, repr) => repr.buffer_len(),
        }
    }

    /// Appends the body, without generic header. After an error the octets in `out` are of no use.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Sa(repr) => repr.encode(out),
            Self::Ke(repr) => repr.encode(out),
            Self::IdInitiator(repr) | Self::IdResponder(repr) => {
                repr.encode(self.payload_type(), out)
            }
            Self::Cert(repr) => repr.encode(out),
            Self::CertReq(repr) => repr.encode(out),
            Self::Auth(repr) => repr.encode(out),
            Self::Nonce(repr) => repr.encode(out),
            Self::Notify(repr) => repr.encode(out),
            Self::Delete(repr) => repr.encode(out),
            Self::VendorId(repr) => repr.encode(out),
            Self::TsInitiator(repr) | Self::TsResponder(repr) => {
                repr.encode(self.payload_type(), out)
            }
            Self::Config(repr) | Self::Eap(repr) | Self::Unknown(_, repr) => repr.encode(out),
        }
    }
}
