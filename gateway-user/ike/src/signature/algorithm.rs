//! Signature algorithms and their names on the wire (RFC 7427, RFC 8420, RFC 4055, RFC 5758).

use std::fmt;

use der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use der::{Decode, Reader, Sequence, SliceReader, TagNumber};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA1_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA384_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const SHA512_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A hash function within a signature algorithm (IANA "IKEv2 Hash Algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SignatureHash {
    /// Id 1. Only under authentication method 1 (RFC 7296 §3.8), and only if asked for.
    Sha1,
    /// Id 2.
    Sha256,
    /// Id 3.
    Sha384,
    /// Id 4.
    Sha512,
    /// Id 5: the algorithm takes messages of any length (RFC 8420 §2).
    Identity,
}

impl SignatureHash {
    /// Those that SIGNATURE_HASH_ALGORITHMS announces (RFC 7427 §4). SHA-1 is not among them
    /// (RFC 8247 §3.2).
    pub const ANNOUNCED: [Self; 4] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Identity];

    /// The IANA number.
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 1,
            Self::Sha256 => 2,
            Self::Sha384 => 3,
            Self::Sha512 => 4,
            Self::Identity => 5,
        }
    }

    /// The one with this number, if we have it.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            1 => Some(Self::Sha1),
            2 => Some(Self::Sha256),
            3 => Some(Self::Sha384),
            4 => Some(Self::Sha512),
            5 => Some(Self::Identity),
            _ => None,
        }
    }

    /// Octets of output; 0 for [`Self::Identity`].
    const fn len(self) -> u32 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
            Self::Identity => 0,
        }
    }
}

impl fmt::Display for SignatureHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Identity => "Identity",
        })
    }
}

/// What a public key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA, with the modulus' length in bits.
    Rsa(usize),
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Of a SubjectPublicKeyInfo in DER, if we can verify signatures of such keys.
    pub fn of_public_key(spki: &[u8]) -> Option<Self> {
        let mut reader = SliceReader::new(spki).ok()?;
        let (kind, key) = reader
            .sequence(|reader| {
                let algorithm = AlgorithmIdentifier::decode(reader)?;
                let key = der::asn1::BitStringRef::decode(reader)?;
                Ok((algorithm, key))
            })
            .ok()?;
        match kind.oid {
            RSA => {
                let mut key = SliceReader::new(key.as_bytes()?).ok()?;
                let modulus = key
                    .sequence(|reader| {
                        let modulus = der::asn1::UintRef::decode(reader)?;
                        der::asn1::UintRef::decode(reader)?;
                        Ok(modulus)
                    })
                    .ok()?;
                let octets = modulus.as_bytes();
                let unused = octets.first()?.leading_zeros() as usize;
                Some(Self::Rsa(octets.len() * 8 - unused))
            }
            EC_PUBLIC_KEY => match kind.parameters?.decode_as::<ObjectIdentifier>().ok()? {
                P256 => Some(Self::EcdsaP256),
                P384 => Some(Self::EcdsaP384),
                P521 => Some(Self::EcdsaP521),
                _ => None,
            },
            ED25519 => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// Security in bits as swanctl counts it: the modulus' or the curve's length.
    pub const fn bits(self) -> usize {
        match self {
            Self::Rsa(bits) => bits,
            Self::EcdsaP256 | Self::Ed25519 => 256,
            Self::EcdsaP384 => 384,
            Self::EcdsaP521 => 521,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::EcdsaP521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// How a signature is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(SignatureHash),
    /// RSASSA-PSS; MGF1 with the same hash, salt as long as the hash.
    RsaPss(SignatureHash),
    /// ECDSA, the signature as ECDSA-Sig-Value in DER.
    Ecdsa(SignatureHash),
    /// ECDSA, the signature as r ‖ s, each as long as the curve's order; the hash of the curve
    /// (RFC 4754 §7).
    EcdsaFixed(SignatureHash),
    /// Ed25519, not pre-hashed.
    Ed25519,
}

impl SignatureScheme {
    /// Its hash.
    pub const fn hash(self) -> SignatureHash {
        match self {
            Self::RsaPkcs1(hash)
            | Self::RsaPss(hash)
            | Self::Ecdsa(hash)
            | Self::EcdsaFixed(hash) => hash,
            Self::Ed25519 => SignatureHash::Identity,
        }
    }

    /// Whether signatures of such keys are made like this.
    pub const fn fits(self, kind: KeyKind) -> bool {
        match self {
            Self::RsaPkcs1(_) | Self::RsaPss(_) => matches!(kind, KeyKind::Rsa(_)),
            Self::Ecdsa(_) => matches!(
                kind,
                KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521
            ),
            Self::EcdsaFixed(SignatureHash::Sha256) => matches!(kind, KeyKind::EcdsaP256),
            Self::EcdsaFixed(SignatureHash::Sha384) => matches!(kind, KeyKind::EcdsaP384),
            Self::EcdsaFixed(SignatureHash::Sha512) => matches!(kind, KeyKind::EcdsaP521),
            Self::EcdsaFixed(_) => false,
            Self::Ed25519 => matches!(kind, KeyKind::Ed25519),
        }
    }

    /// AlgorithmIdentifier in DER: what stands before the signature under authentication method
    /// 14 (RFC 7427 §3, Appendix A). `None` for what only the old methods have.
    pub const fn algorithm_identifier(self) -> Option<&'static [u8]> {
        use SignatureHash::{Sha256, Sha384, Sha512};
        Some(match self {
            Self::RsaPkcs1(Sha256) => {
                b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"
            }
            Self::RsaPkcs1(Sha384) => {
                b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00"
            }
            Self::RsaPkcs1(Sha512) => {
                b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00"
            }
            // DER leaves the trailer field out, which has its default; Appendix A.4.3 does not.
            Self::RsaPss(Sha256) => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
                  \xa2\x03\x02\x01\x20"
            }
            Self::RsaPss(Sha384) => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
                  \xa2\x03\x02\x01\x30"
            }
            Self::RsaPss(Sha512) => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
                  \xa2\x03\x02\x01\x40"
            }
            Self::Ecdsa(Sha256) => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            Self::Ecdsa(Sha384) => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            Self::Ecdsa(Sha512) => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
            Self::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
            _ => return None,
        })
    }

    /// The scheme that an AlgorithmIdentifier in DER names, if we can verify it. Absent and NULL
    /// parameters are the same where there are none to have.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let algorithm = AlgorithmIdentifier::from_der(der).ok()?;
        let no_parameters = algorithm.parameters.is_none_or(AnyRef::is_null);
        let plain = match algorithm.oid {
            SHA1_WITH_RSA => Self::RsaPkcs1(SignatureHash::Sha1),
            SHA256_WITH_RSA => Self::RsaPkcs1(SignatureHash::Sha256),
            SHA384_WITH_RSA => Self::RsaPkcs1(SignatureHash::Sha384),
            SHA512_WITH_RSA => Self::RsaPkcs1(SignatureHash::Sha512),
            ECDSA_SHA256 => Self::Ecdsa(SignatureHash::Sha256),
            ECDSA_SHA384 => Self::Ecdsa(SignatureHash::Sha384),
            ECDSA_SHA512 => Self::Ecdsa(SignatureHash::Sha512),
            ED25519 => Self::Ed25519,
            RSASSA_PSS => return pss(algorithm.parameters?).map(Self::RsaPss),
            _ => return None,
        };
        no_parameters.then_some(plain)
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "RSA PKCS#1 v1.5 with {hash}"),
            Self::RsaPss(hash) => write!(f, "RSA-PSS with {hash}"),
            Self::Ecdsa(hash) | Self::EcdsaFixed(hash) => write!(f, "ECDSA with {hash}"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// RFC 5280 §4.1.1.2.
#[derive(Clone, Copy, Sequence)]
struct AlgorithmIdentifier<'a> {
    oid: ObjectIdentifier,
    #[asn1(optional = "true")]
    parameters: Option<AnyRef<'a>>,
}

/// The hash of RSASSA-PSS-params (RFC 4055 §3.1): both hashes alike, the salt as long as they, and
/// the trailer field that there is.
fn pss(parameters: AnyRef<'_>) -> Option<SignatureHash> {
    let decoded = parameters.sequence(|reader| {
        let hash =
            ContextSpecific::<AlgorithmIdentifier<'_>>::decode_explicit(reader, TagNumber::N0)?;
        let mask =
            ContextSpecific::<AlgorithmIdentifier<'_>>::decode_explicit(reader, TagNumber::N1)?;
        let salt = ContextSpecific::<u32>::decode_explicit(reader, TagNumber::N2)?;
        let trailer = ContextSpecific::<u32>::decode_explicit(reader, TagNumber::N3)?;
        Ok((hash, mask, salt, trailer))
    });
    let (hash, mask, salt, trailer) = decoded.ok()?;
    // Absent means SHA-1, which we do not take.
    let hash = hash_of(hash?.value)?;
    let mask = mask?.value;
    if mask.oid != MGF1 {
        return None;
    }
    let mask_hash = hash_of(mask.parameters?.decode_as().ok()?)?;
    let standard = mask_hash == hash
        && salt?.value == hash.len()
        && trailer.is_none_or(|trailer| trailer.value == 1);
    standard.then_some(hash)
}

fn hash_of(algorithm: AlgorithmIdentifier<'_>) -> Option<SignatureHash> {
    if algorithm.parameters.is_some_and(|any| !any.is_null()) {
        return None;
    }
    match algorithm.oid {
        SHA256 => Some(SignatureHash::Sha256),
        SHA384 => Some(SignatureHash::Sha384),
        SHA512 => Some(SignatureHash::Sha512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn what_we_write_we_read() {
        use SignatureHash::{Sha256, Sha384, Sha512};
        for hash in [Sha256, Sha384, Sha512] {
            for scheme in [
                SignatureScheme::RsaPkcs1(hash),
                SignatureScheme::RsaPss(hash),
                SignatureScheme::Ecdsa(hash),
                SignatureScheme::Ed25519,
            ] {
                let der = scheme.algorithm_identifier().unwrap();
                assert_eq!(
                    SignatureScheme::from_algorithm_identifier(der),
                    Some(scheme)
                );
                for len in 0..der.len() {
                    assert_eq!(
                        SignatureScheme::from_algorithm_identifier(&der[..len]),
                        None
                    );
                }
            }
        }
    }

    /// RFC 7427 Appendix A, RFC 8420 Appendix A.
    #[test]
    fn the_examples_of_the_rfcs() {
        use SignatureHash::{Sha1, Sha256, Sha512};
        let read = |text| SignatureScheme::from_algorithm_identifier(&hex(text));
        let pkcs1 = SignatureScheme::RsaPkcs1;
        assert_eq!(
            read("300d 0609 2a86 4886 f70d 0101 0505 00"),
            Some(pkcs1(Sha1))
        );
        assert_eq!(
            read("300d 0609 2a86 4886 f70d 0101 0b05 00"),
            Some(pkcs1(Sha256))
        );
        assert_eq!(
            read("300d 0609 2a86 4886 f70d 0101 0d05 00"),
            Some(pkcs1(Sha512))
        );
        assert_eq!(
            read("300a 0608 2a86 48ce 3d04 0302"),
            Some(SignatureScheme::Ecdsa(Sha256))
        );
        // A.4.1 and A.4.2 mean SHA-1.
        assert_eq!(read("300d 0609 2a86 4886 f70d 0101 0a30 00"), None);
        assert_eq!(
            read(
                "303e 0609 2a86 4886 f70d 0101 0a30 31a0 0b30 0906 052b 0e03 021a 0500 a118 3016
                 0609 2a86 4886 f70d 0101 0830 0906 052b 0e03 021a 0500 a203 0201 14a3 0302 0101"
            ),
            None
        );
        // A.4.3, with its trailer field.
        assert_eq!(
            read(
                "3046 0609 2a86 4886 f70d 0101 0a30 39a0 0f30 0d06 0960 8648 0165 0304 0201 0500
                 a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203
                 0201 20a3 0302 0101"
            ),
            Some(SignatureScheme::RsaPss(Sha256))
        );
        assert_eq!(read("3005 0603 2b65 70"), Some(SignatureScheme::Ed25519));
    }

    #[test]
    fn mixed_pss_parameters_are_refused() {
        let good = SignatureScheme::RsaPss(SignatureHash::Sha256)
            .algorithm_identifier()
            .unwrap();
        // Another salt length; another hash for the mask.
        let salt = good.len() - 1;
        let mask = 59;
        assert_eq!((good[salt], good[mask]), (0x20, 0x01));
        for (index, octet) in [(salt, 0x14), (mask, 0x02)] {
            let mut other = good.to_vec();
            other[index] = octet;
            assert_eq!(SignatureScheme::from_algorithm_identifier(&other), None);
        }
    }
}
