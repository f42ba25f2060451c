//! The generic payload header and the chain of payloads (RFC 7296 §3.2).

use super::WireError;

/// Octets of the generic payload header.
pub const GENERIC_HEADER_LEN: usize = 4;

/// Most payloads accepted in one chain. The largest real messages (several certificates, a dozen
/// notifications and vendor ids) stay below half of it.
pub const MAX_PAYLOADS: usize = 64;

const FLAG_CRITICAL: u8 = 0x80;

code_points! {
    /// IKEv2 Payload Types (RFC 7296 §3.2).
    PayloadType(u8) {
        /// No further payload.
        NONE = 0,
        /// Security Association, §3.3.
        SA = 33,
        /// Key Exchange, §3.4.
        KE = 34,
        /// Identification, initiator, §3.5.
        IDI = 35,
        /// Identification, responder, §3.5.
        IDR = 36,
        /// Certificate, §3.6.
        CERT = 37,
        /// Certificate Request, §3.7.
        CERTREQ = 38,
        /// Authentication, §3.8.
        AUTH = 39,
        /// Nonce, §3.9.
        NONCE = 40,
        /// Notify, §3.10.
        NOTIFY = 41,
        /// Delete, §3.11.
        DELETE = 42,
        /// Vendor ID, §3.12.
        VENDOR = 43,
        /// Traffic selectors, initiator, §3.13.
        TSI = 44,
        /// Traffic selectors, responder, §3.13.
        TSR = 45,
        /// Encrypted and Authenticated, §3.14.
        SK = 46,
        /// Configuration, §3.15.
        CP = 47,
        /// Extensible Authentication, §3.16.
        EAP = 48,
        /// Encrypted and Authenticated Fragment (RFC 7383 §2.5).
        SKF = 53,
    }
}

impl PayloadType {
    /// Whether this release knows the payload, so that its critical bit does not matter.
    pub const fn is_known(self) -> bool {
        self.0 != Self::NONE.0 && self.name().is_some()
    }

    /// Whether the payload ends the chain, its Next Payload field naming what is inside
    /// (RFC 7296 §3.14, RFC 7383 §2.5).
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::SK | Self::SKF)
    }
}

/// One payload of a chain: type and octets after the generic header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPayload<'a> {
    /// Its type.
    pub kind: PayloadType,
    /// Its critical bit.
    pub critical: bool,
    /// The Next Payload field: for SK and SKF the type of the first payload inside.
    pub next: PayloadType,
    /// What follows the generic header.
    pub body: &'a [u8],
}

/// A chain of payloads whose lengths have been checked to the end. Iterates over them.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    next: PayloadType,
    rest: &'a [u8],
}

impl<'a> Chain<'a> {
    /// `bytes` begins with the generic header of a payload of type `first`, and the chain fills it
    /// exactly.
    ///
    /// # Errors
    /// [`WireError::PayloadLength`], [`WireError::TrailingOctets`], [`WireError::TooManyPayloads`];
    /// [`WireError::Misplaced`] when something follows an Encrypted payload;
    /// [`WireError::UnsupportedCriticalPayload`] for the first payload that is critical and
    /// unknown, unless a later one has a bad length.
    pub fn new_checked(first: PayloadType, bytes: &'a [u8]) -> Result<Self, WireError> {
        let chain = Self {
            next: first,
            rest: bytes,
        };
        let mut walk = chain.clone();
        let mut refused = None;
        let mut count = 0;
        while walk.next != PayloadType::NONE {
            count += 1;
            if count > MAX_PAYLOADS {
                return Err(WireError::TooManyPayloads);
            }
            let payload = walk.step()?;
            if payload.critical && !payload.kind.is_known() {
                refused.get_or_insert(payload.kind);
            }
            if payload.kind.is_encrypted() && !walk.rest.is_empty() {
                return Err(WireError::Misplaced(payload.kind));
            }
        }
        if !walk.rest.is_empty() {
            return Err(WireError::TrailingOctets(walk.rest.len()));
        }
        match refused {
            Some(kind) => Err(WireError::UnsupportedCriticalPayload(kind)),
            None => Ok(chain),
        }
    }

    /// Cuts the next payload off.
    fn step(&mut self) -> Result<RawPayload<'a>, WireError> {
        let kind = self.next;
        let available = self.rest.len();
        let Some(&[next, flags, high, low]) = self.rest.first_chunk() else {
            return Err(WireError::PayloadLength {
                kind,
                length: 0,
                available,
            });
        };
        let length = u16::from_be_bytes([high, low]);
        let (payload, rest) =
            self.rest
                .split_at_checked(usize::from(length))
                .ok_or(WireError::PayloadLength {
                    kind,
                    length,
                    available,
                })?;
        let body = payload
            .get(GENERIC_HEADER_LEN..)
            .ok_or(WireError::PayloadLength {
                kind,
                length,
                available,
            })?;
        self.rest = rest;
        self.next = if kind.is_encrypted() {
            PayloadType::NONE
        } else {
            PayloadType(next)
        };
        Ok(RawPayload {
            kind,
            critical: flags & FLAG_CRITICAL != 0,
            next: PayloadType(next),
            body,
        })
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = RawPayload<'a>;

    fn next(&mut self) -> Option<RawPayload<'a>> {
        if self.next == PayloadType::NONE {
            return None;
        }
        // `new_checked` has walked the same octets; a failure here would end the iteration.
        self.step().ok()
    }
}
