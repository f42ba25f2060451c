//! Algorithms of the kernel's crypto API, made ready before an SA needs them.
//!
//! The first use of an algorithm makes the kernel load modules and test them, which takes tens of
//! milliseconds, and seconds on a slow machine. XFRM does that while it holds the one lock of the
//! network namespace's SAD and SPD, so that every other request waits too, from whatever thread.
//! `NETLINK_CRYPTO` does the same work without that lock.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use gateway_ike::crypto::Encryption;
use zerocopy::IntoBytes;

use super::error::XfrmError;
use super::message::{cipher_name, integrity_name};
use super::parse::{Messages, acknowledgement};
use super::socket::{io_error, raw, receive};
use super::uapi::{
    CRYPTO_ALG_TYPE_AEAD, CRYPTO_ALG_TYPE_MASK, CRYPTO_MAX_NAME, CRYPTO_MSG_NEWALG, CryptoUserAlg,
    NlMsgHdr,
};

/// Longest answer: an `NLMSG_ERROR` with the request in it.
const ANSWER: usize = 1024;

/// The crypto API of the kernel.
pub struct CryptoApi {
    fd: OwnedFd,
    seq: u32,
}

impl CryptoApi {
    /// Opens a socket.
    ///
    /// # Errors
    /// When the kernel has no such interface (CONFIG_CRYPTO_USER).
    pub fn open() -> Result<Self, XfrmError> {
        let context = "opening a NETLINK_CRYPTO socket (the kernel needs CONFIG_CRYPTO_USER)";
        let fd = raw(libc::NETLINK_CRYPTO, 0, context)?;
        Ok(Self { fd, seq: 0 })
    }

    /// Makes an AEAD with the crypto API's `name` usable: loads its modules, puts its parts together
    /// and tests them. Returns when that is done; there is nothing to undo.
    ///
    /// # Errors
    /// `ENOENT`: the kernel has no such algorithm, or it failed its test. `EPERM` without
    /// CAP_NET_ADMIN.
    pub fn load(&mut self, name: &str) -> Result<(), XfrmError> {
        self.seq = self.seq.wrapping_add(1);
        let request = request(name, self.seq)?;
        // SAFETY: the pointer and length describe `request`. A netlink socket that is not connected
        // sends to the kernel.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                request.as_ptr().cast(),
                request.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 {
            return Err(XfrmError::last_os("asking for an algorithm"));
        }
        match self.answer()? {
            // Somebody was quicker, or it is built in.
            0 | libc::EEXIST => Ok(()),
            errno => {
                let operation = format!("load algorithm {name}");
                Err(XfrmError::refused_operation(operation, errno, None))
            }
        }
    }

    /// The errno that answers the last request, 0 for success.
    fn answer(&self) -> Result<i32, XfrmError> {
        let mut buffer = [0; ANSWER];
        loop {
            let len = receive(&self.fd, &mut buffer)
                .map_err(|source| io_error("reading the kernel's answer", source))?;
            let answer = Messages(&buffer[..len])
                .find(|m| m.header.seq == self.seq)
                .and_then(|message| acknowledgement(&message));
            if let Some((errno, _)) = answer {
                return Ok(errno);
            }
        }
    }
}

fn request(name: &str, seq: u32) -> Result<Vec<u8>, XfrmError> {
    let mut padded = [0; CRYPTO_MAX_NAME];
    // The kernel wants a zero at the end.
    let room = padded[..CRYPTO_MAX_NAME - 1].get_mut(..name.len());
    let Some(room) = room else {
        let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
        return Err(io_error("asking for an algorithm", source));
    };
    room.copy_from_slice(name.as_bytes());
    let header = NlMsgHdr {
        len: (size_of::<NlMsgHdr>() + size_of::<CryptoUserAlg>()) as u32,
        kind: CRYPTO_MSG_NEWALG,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
        seq,
        pid: 0,
    };
    let body = CryptoUserAlg {
        name: padded,
        driver_name: [0; CRYPTO_MAX_NAME],
        module_name: [0; CRYPTO_MAX_NAME],
        kind: CRYPTO_ALG_TYPE_AEAD,
        mask: CRYPTO_ALG_TYPE_MASK,
        refcnt: 0,
        flags: 0,
    };
    Ok([header.as_bytes(), body.as_bytes()].concat())
}

/// The crypto API's name of what ESP uses for an SA (`net/ipv4/esp4.c`): the algorithms of the SA and
/// a generator of IVs.
pub fn transform_name(encryption: Encryption, esn: bool) -> String {
    let cipher = cipher_name(encryption);
    match encryption.integrity() {
        None => format!("seqiv({cipher})"),
        Some(integrity) => {
            let template = if esn { "authencesn" } else { "authenc" };
            let integrity = integrity_name(integrity);
            format!("echainiv({template}({integrity},{cipher}))")
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_ike::crypto::{AesKey, Integrity};
    use gateway_ike::proposal::EspProposal;

    use super::*;

    /// As /proc/crypto has them on Debian's 6.1 while such SAs stand.
    #[test]
    fn names_are_those_that_esp_asks_for() {
        let cbc = Encryption::AesCbc(AesKey::Bits256, Integrity::HmacSha512_256);
        for (encryption, esn, name) in [
            (
                Encryption::AesGcm16Key128,
                false,
                "seqiv(rfc4106(gcm(aes)))",
            ),
            (Encryption::AesGcm16Key256, true, "seqiv(rfc4106(gcm(aes)))"),
            (
                Encryption::ChaCha20Poly1305,
                false,
                "seqiv(rfc7539esp(chacha20,poly1305))",
            ),
            (cbc, false, "echainiv(authenc(hmac(sha512),cbc(aes)))"),
            (cbc, true, "echainiv(authencesn(hmac(sha512),cbc(aes)))"),
        ] {
            assert_eq!(transform_name(encryption, esn), name);
        }
    }

    #[test]
    fn every_name_fits_a_request() {
        for proposal in EspProposal::defaults() {
            let name = transform_name(proposal.encryption, proposal.esn);
            let bytes = request(&name, 7).unwrap();
            assert_eq!(bytes.len(), 16 + 208, "linux/cryptouser.h");
            assert_eq!(bytes[..4], 224_u32.to_ne_bytes());
            assert!(bytes[16..].starts_with(name.as_bytes()));
            assert_eq!(bytes[16 + name.len()], 0);
            assert_eq!(bytes[208..216], [[3, 0, 0, 0], [15, 0, 0, 0]].concat());
        }
        assert!(request(&"x".repeat(63), 7).is_ok());
        assert!(request(&"x".repeat(64), 7).is_err());
    }

    /// Where the kernel has the interface; elsewhere the error names what is missing.
    #[test]
    fn an_algorithm_is_loaded_or_the_error_tells_why() {
        match CryptoApi::open() {
            Ok(mut api) => {
                let unknown = api.load("seqiv(nothing)").unwrap_err();
                assert!(
                    matches!(unknown.errno(), Some(libc::ENOENT | libc::EPERM)),
                    "{unknown}"
                );
                if unknown.errno() == Some(libc::ENOENT) {
                    let name = transform_name(Encryption::AesGcm16Key128, false);
                    api.load(&name).unwrap();
                    api.load(&name).unwrap();
                }
            }
            Err(error) => assert!(error.to_string().contains("CONFIG_CRYPTO_USER"), "{error}"),
        }
    }
}
