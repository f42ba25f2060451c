//! AES-GCM, ChaCha20-Poly1305, and AES-CBC with HMAC.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey,
    EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use gateway_ike::crypto::{AesKey, CryptoError, Encryption, Integrity};

use super::icv;

/// Octets of a combined-mode nonce: the salt and the explicit IV (RFC 4106 §4, RFC 5282 §4,
/// RFC 7634 §2).
const NONCE_LEN: usize = 12;

/// Octets of an AES block.
const BLOCK_LEN: usize = 16;

pub(super) fn seal_combined(
    encryption: Encryption,
    keymat: &[u8],
    iv: &[u8],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let (key, nonce) = combined(encryption, keymat, iv)?;
    key.seal_in_place_append_tag(nonce, Aad::from(aad), buffer)
        .map_err(|_| CryptoError::Library)
}

pub(super) fn open_combined(
    encryption: Encryption,
    keymat: &[u8],
    iv: &[u8],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let (key, nonce) = combined(encryption, keymat, iv)?;
    let len = key
        .open_in_place(nonce, Aad::from(aad), buffer)
        .map_err(|_| CryptoError::IntegrityFailed)?
        .len();
    buffer.truncate(len);
    Ok(())
}

/// Key and nonce from key ‖ salt and the explicit IV.
fn combined(
    encryption: Encryption,
    keymat: &[u8],
    iv: &[u8],
) -> Result<(LessSafeKey, Nonce), CryptoError> {
    let algorithm = match encryption {
        Encryption::AesGcm16Key128 => &AES_128_GCM,
        Encryption::AesGcm16Key192 => &AES_192_GCM,
        Encryption::AesGcm16Key256 => &AES_256_GCM,
        Encryption::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Encryption::AesCbc(..) => return Err(CryptoError::Library),
    };
    if keymat.len() != encryption.keymat_len() || iv.len() != encryption.iv_len() {
        return Err(CryptoError::WrongLength);
    }
    let (key, salt) = keymat.split_at(encryption.key_len());
    let mut nonce = [0; NONCE_LEN];
    nonce[..salt.len()].copy_from_slice(salt);
    nonce[salt.len()..].copy_from_slice(iv);
    let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Library)?;
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
}

/// RFC 7296 §3.14: encrypts, then computes the ICV over everything up to the ICV.
pub(super) fn encrypt_then_mac(
    (encryption, integrity): (Encryption, Integrity),
    keymat: &[u8],
    iv: &[u8],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let (key, mac_key, iv) = cbc(encryption, keymat, iv)?;
    if !buffer.len().is_multiple_of(BLOCK_LEN) {
        return Err(CryptoError::WrongLength);
    }
    let key = EncryptingKey::cbc(key).map_err(|_| CryptoError::Library)?;
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(buffer, context)
        .map_err(|_| CryptoError::Library)?;
    let tag = icv(integrity, mac_key, &[aad, &iv, buffer]);
    buffer.extend_from_slice(&tag);
    Ok(())
}

/// The ICV first, in constant time: of what is not authentic, nothing is decrypted, so that padding
/// tells nothing.
pub(super) fn verify_then_decrypt(
    (encryption, integrity): (Encryption, Integrity),
    keymat: &[u8],
    iv: &[u8],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let (key, mac_key, iv) = cbc(encryption, keymat, iv)?;
    let text = buffer
        .len()
        .checked_sub(integrity.icv_len())
        .ok_or(CryptoError::IntegrityFailed)?;
    let (ciphertext, received) = buffer.split_at_mut(text);
    let expected = icv(integrity, mac_key, &[aad, &iv, ciphertext]);
    verify_slices_are_equal(&expected, received).map_err(|_| CryptoError::IntegrityFailed)?;
    if !text.is_multiple_of(BLOCK_LEN) {
        return Err(CryptoError::IntegrityFailed);
    }
    let key = DecryptingKey::cbc(key).map_err(|_| CryptoError::Library)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    key.decrypt(ciphertext, context)
        .map_err(|_| CryptoError::Library)?;
    buffer.truncate(text);
    Ok(())
}

/// Cipher key, integrity key and IV.
fn cbc<'a>(
    encryption: Encryption,
    keymat: &'a [u8],
    iv: &[u8],
) -> Result<(UnboundCipherKey, &'a [u8], [u8; BLOCK_LEN]), CryptoError> {
    let algorithm: &'static Algorithm = match encryption {
        Encryption::AesCbc(AesKey::Bits128, _) => &AES_128,
        Encryption::AesCbc(AesKey::Bits192, _) => &AES_192,
        Encryption::AesCbc(AesKey::Bits256, _) => &AES_256,
        _ => return Err(CryptoError::Library),
    };
    if keymat.len() != encryption.keymat_len() {
        return Err(CryptoError::WrongLength);
    }
    let iv = iv.try_into().map_err(|_| CryptoError::WrongLength)?;
    let (key, mac_key) = keymat.split_at(encryption.key_len());
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| CryptoError::Library)?;
    Ok((key, mac_key, iv))
}
