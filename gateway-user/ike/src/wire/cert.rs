//! The Certificate and Certificate Request payloads (RFC 7296 §3.6, §3.7).

use super::{EncodeError, Malformation, PayloadType, WireError};

code_points! {
    /// IKEv2 Certificate Encodings.
    CertEncoding(u8) {
        /// PKCS #7 wrapped X.509; unspecified, not to be used.
        PKCS7_X509 = 1,
        /// One DER certificate.
        X509_SIGNATURE = 4,
        /// DER CRL.
        CRL = 7,
        /// A SHA-1 hash and a URL of one certificate.
        HASH_URL_X509 = 12,
        /// A SHA-1 hash and a URL of a bundle.
        HASH_URL_BUNDLE = 13,
        /// RFC 4806.
        OCSP_CONTENT = 14,
        /// SubjectPublicKeyInfo (RFC 7670).
        RAW_PUBLIC_KEY = 15,
    }
}

/// A view of a CERT or CERTREQ payload's body: both are an encoding and data.
#[derive(Clone, Copy, Debug)]
pub struct CertPacket<'a> {
    encoding: u8,
    data: &'a [u8],
}

impl<'a> CertPacket<'a> {
    /// `kind` (CERT or CERTREQ) is only for the error.
    pub fn new_checked(kind: PayloadType, body: &'a [u8]) -> Result<Self, WireError> {
        let (&encoding, data) = body.split_first().ok_or(WireError::Malformed {
            kind,
            cause: Malformation::TooShort,
        })?;
        Ok(Self { encoding, data })
    }

    /// The encoding.
    pub fn encoding(&self) -> CertEncoding {
        CertEncoding(self.encoding)
    }

    /// Certificate Data or Certification Authority.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// A certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertRepr<'a> {
    /// How `data` is encoded.
    pub encoding: CertEncoding,
    /// Certificate Data, not looked into.
    pub data: &'a [u8],
}

impl<'a> CertRepr<'a> {
    /// Never fails beyond [`CertPacket::new_checked`].
    pub fn parse(packet: &CertPacket<'a>) -> Result<Self, WireError> {
        Ok(Self {
            encoding: packet.encoding(),
            data: packet.data(),
        })
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        1 + self.data.len()
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(self.encoding.0);
        out.extend_from_slice(self.data);
        Ok(())
    }
}

/// A certificate request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertReqRepr<'a> {
    /// The encoding asked for.
    pub encoding: CertEncoding,
    /// For X.509 the SHA-1 hashes of trusted authorities' SubjectPublicKeyInfo, end to end; may be
    /// empty.
    pub authorities: &'a [u8],
}

impl<'a> CertReqRepr<'a> {
    /// Fails with [`Malformation::DataLength`] if a list of hashes is not a multiple of 20 octets.
    pub fn parse(packet: &CertPacket<'a>) -> Result<Self, WireError> {
        let repr = Self {
            encoding: packet.encoding(),
            authorities: packet.data(),
        };
        if repr.has_valid_len() {
            Ok(repr)
        } else {
            Err(WireError::Malformed {
                kind: PayloadType::CERTREQ,
                cause: Malformation::DataLength,
            })
        }
    }

    fn has_valid_len(&self) -> bool {
        self.encoding != CertEncoding::X509_SIGNATURE || self.authorities.len().is_multiple_of(20)
    }

    /// The authorities' key hashes, if the encoding has any.
    pub fn hashes(&self) -> impl Iterator<Item = &'a [u8; 20]> + use<'a> {
        let list = match self.encoding {
            CertEncoding::X509_SIGNATURE => self.authorities,
            _ => &[],
        };
        list.as_chunks().0.iter()
    }

    /// Octets of the body.
    pub fn buffer_len(&self) -> usize {
        1 + self.authorities.len()
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !self.has_valid_len() {
            return Err(EncodeError::OutOfRange(PayloadType::CERTREQ));
        }
        out.push(self.encoding.0);
        out.extend_from_slice(self.authorities);
        Ok(())
    }
}
