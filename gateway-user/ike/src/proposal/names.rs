//! An offer in strongSwan's notation, for the operator who compares two configurations.

use std::fmt::Write;

use super::additional::ADDITIONAL_TYPES;
use crate::crypto::{Encryption, KeyExchangeMethod, Prf};
use crate::wire::{Proposal, ProtocolId, Transform, TransformType};

/// Octets after which an offer's text is cut: a hostile one has thousands of transforms.
const MAX_TEXT: usize = 1000;

/// `AES_CBC-128` and `HMAC_SHA2_256_128`, or `AES_GCM_16-128`.
pub(super) fn encryption_names(encryption: Encryption) -> Vec<String> {
    let mut cipher = named(&ENCR, encryption.transform_id()).to_owned();
    if let Some(bits) = encryption.key_length_attribute() {
        push(&mut cipher, format_args!("-{bits}"));
    }
    let integrity = encryption.integrity();
    let integrity = integrity.map(|one| named(&INTEG, one.transform_id()).to_owned());
    [cipher].into_iter().chain(integrity).collect()
}

pub(super) fn prf_name(prf: Prf) -> &'static str {
    named(&PRF, prf.transform_id())
}

pub(super) fn ke_name(ke: KeyExchangeMethod) -> &'static str {
    named(&KE, ke.transform_id())
}

pub(super) fn esn_name(esn: bool) -> &'static str {
    named(&ESN, u16::from(esn))
}

/// Everything that we have is in the registries below.
fn named(registry: &[(u16, &'static str)], id: u16) -> &'static str {
    let found = registry.iter().find(|(known, _)| *known == id);
    found.map_or("?", |(_, name)| name)
}

const ENCR: [(u16, &str); 14] = [
    (2, "DES_CBC"),
    (3, "3DES_CBC"),
    (11, "NULL"),
    (12, "AES_CBC"),
    (13, "AES_CTR"),
    (14, "AES_CCM_8"),
    (15, "AES_CCM_12"),
    (16, "AES_CCM_16"),
    (18, "AES_GCM_8"),
    (19, "AES_GCM_12"),
    (20, "AES_GCM_16"),
    (21, "NULL_AES_GMAC"),
    (23, "CAMELLIA_CBC"),
    (28, "CHACHA20_POLY1305"),
];
const PRF: [(u16, &str); 7] = [
    (1, "PRF_HMAC_MD5"),
    (2, "PRF_HMAC_SHA1"),
    (4, "PRF_AES128_XCBC"),
    (5, "PRF_HMAC_SHA2_256"),
    (6, "PRF_HMAC_SHA2_384"),
    (7, "PRF_HMAC_SHA2_512"),
    (8, "PRF_AES128_CMAC"),
];
const INTEG: [(u16, &str); 8] = [
    (0, "INTEG_NONE"),
    (1, "HMAC_MD5_96"),
    (2, "HMAC_SHA1_96"),
    (5, "AES_XCBC_96"),
    (8, "AES_CMAC_96"),
    (12, "HMAC_SHA2_256_128"),
    (13, "HMAC_SHA2_384_192"),
    (14, "HMAC_SHA2_512_256"),
];
const KE: [(u16, &str); 26] = [
    (0, "KE_NONE"),
    (1, "MODP_768"),
    (2, "MODP_1024"),
    (5, "MODP_1536"),
    (14, "MODP_2048"),
    (15, "MODP_3072"),
    (16, "MODP_4096"),
    (17, "MODP_6144"),
    (18, "MODP_8192"),
    (19, "ECP_256"),
    (20, "ECP_384"),
    (21, "ECP_521"),
    (22, "MODP_1024_160"),
    (23, "MODP_2048_224"),
    (24, "MODP_2048_256"),
    (25, "ECP_192"),
    (26, "ECP_224"),
    (27, "ECP_224_BP"),
    (28, "ECP_256_BP"),
    (29, "ECP_384_BP"),
    (30, "ECP_512_BP"),
    (31, "CURVE_25519"),
    (32, "CURVE_448"),
    (35, "ML_KEM_512"),
    (36, "ML_KEM_768"),
    (37, "ML_KEM_1024"),
];
const ESN: [(u16, &str); 2] = [(0, "NO_EXT_SEQ"), (1, "EXT_SEQ")];

/// `IKE:AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048, ESP:…`
pub(super) fn offer_text(offered: &[Proposal]) -> String {
    if offered.is_empty() {
        return "nothing".to_owned();
    }
    let mut text = String::new();
    for (index, proposal) in offered.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(&protocol(proposal.protocol));
        for (index, transform) in proposal.transforms.iter().enumerate() {
            if text.len() > MAX_TEXT {
                text.push('…');
                return text;
            }
            text.push(if index == 0 { ':' } else { '/' });
            push_transform(&mut text, transform);
        }
    }
    text
}

fn protocol(protocol: ProtocolId) -> String {
    match protocol.name() {
        Some(name) => name.to_owned(),
        None => format!("PROTO_{}", protocol.0),
    }
}

fn push_transform(text: &mut String, transform: &Transform) {
    if let Some(at) = ADDITIONAL_TYPES.iter().position(|t| *t == transform.kind) {
        push(text, format_args!("KE{}_", at + 1));
    }
    let (registry, prefix): (&[(u16, &str)], &str) = match transform.kind {
        TransformType::ENCR => (&ENCR, "ENCR"),
        TransformType::PRF => (&PRF, "PRF"),
        TransformType::INTEG => (&INTEG, "INTEG"),
        TransformType::KE => (&KE, "KE"),
        TransformType::ESN => (&ESN, "ESN"),
        kind if ADDITIONAL_TYPES.contains(&kind) && transform.id == 0 => {
            text.push_str("NONE");
            return;
        }
        kind if ADDITIONAL_TYPES.contains(&kind) => (&KE, "KE"),
        TransformType(other) => {
            push(text, format_args!("TYPE_{other}_{}", transform.id));
            return;
        }
    };
    match registry.iter().find(|(id, _)| *id == transform.id) {
        Some((_, name)) => text.push_str(name),
        None => push(text, format_args!("{prefix}_{}", transform.id)),
    }
    if let Some(bits) = transform.key_length() {
        push(text, format_args!("-{bits}"));
    } else if let Some(attribute) = transform.attributes.first() {
        // Why a suite that looks right is not chosen.
        push(text, format_args!("(attribute {})", attribute.kind));
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = text.write_fmt(arguments);
}
