//! Stateless cookies (RFC 7296 §2.6).

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::abi::Address;
use gateway_common::time::Instant;
use subtle::ConstantTimeEq;

use crate::crypto::{CryptoProvider, Prf};
use crate::secret::SecretBytes;

/// How long a secret of our own lives; cookies of the one before are accepted as long again.
const ROTATION: Duration = Duration::from_secs(60);

/// Octets of the version in front of the cookie.
const VERSION_LEN: usize = 4;

/// Octets of a secret of our own.
const SECRET_LEN: usize = 32;

struct Secret {
    version: u32,
    secret: SecretBytes,
}

/// What a cookie proves: that the initiator with this SPI and nonce receives at this address.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// Source address of the IKE_SA_INIT request.
    pub(crate) source: IpAddr,
    /// The initiator's SPI.
    pub(crate) spi: [u8; 8],
    /// The initiator's nonce.
    pub(crate) nonce: &'a [u8],
}

/// Mints and checks cookies: `version ‖ prf(secret, Ni ‖ IPi ‖ SPIi)`, 36 octets (1 to 64 are
/// allowed). The current secret and the one before are accepted.
///
/// A lone endpoint draws and rotates its own secrets. From the first [`Self::set`] on, the
/// cluster does: every member must accept a cookie that another one minted.
pub(crate) struct Cookies {
    current: Secret,
    previous: Option<Secret>,
    rotated: Instant,
    external: bool,
}

impl Cookies {
    /// With a random secret and version.
    pub(crate) fn new(crypto: &dyn CryptoProvider, now: Instant) -> Self {
        let mut version = [0; VERSION_LEN];
        crypto.random(&mut version);
        Self {
            current: draw(crypto, u32::from_be_bytes(version)),
            previous: None,
            rotated: now,
            external: false,
        }
    }

    /// Takes over the cluster's secret. The same version again changes nothing.
    pub(crate) fn set(&mut self, now: Instant, version: u32, secret: SecretBytes) {
        self.external = true;
        if self.current.version == version && self.current.secret == secret {
            return;
        }
        self.rotated = now;
        self.previous = Some(std::mem::replace(
            &mut self.current,
            Secret { version, secret },
        ));
    }

    /// A cookie for `claim`.
    pub(crate) fn mint(
        &mut self,
        crypto: &dyn CryptoProvider,
        now: Instant,
        claim: Claim<'_>,
    ) -> Vec<u8> {
        self.rotate(crypto, now);
        let mut cookie = self.current.version.to_be_bytes().to_vec();
        cookie.extend_from_slice(tag(crypto, &self.current, claim).expose());
        cookie
    }

    /// Whether `cookie` was minted for `claim` under one of the two last secrets. Constant time in
    /// the tag.
    pub(crate) fn verify(
        &mut self,
        crypto: &dyn CryptoProvider,
        now: Instant,
        claim: Claim<'_>,
        cookie: &[u8],
    ) -> bool {
        self.rotate(crypto, now);
        let Some((version, received)) = cookie.split_first_chunk::<VERSION_LEN>() else {
            return false;
        };
        let version = u32::from_be_bytes(*version);
        [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .filter(|secret| secret.version == version)
            .any(|secret| tag(crypto, secret, claim).expose().ct_eq(received).into())
    }

    fn rotate(&mut self, crypto: &dyn CryptoProvider, now: Instant) {
        if self.external || now.saturating_since(self.rotated) < ROTATION {
            return;
        }
        // Two periods of silence: whoever asks now cannot hold a cookie of the last secret.
        let stale = now.saturating_since(self.rotated) >= 2 * ROTATION;
        let next = draw(crypto, self.current.version.wrapping_add(1));
        let last = std::mem::replace(&mut self.current, next);
        self.previous = (!stale).then_some(last);
        self.rotated = now;
    }
}

fn draw(crypto: &dyn CryptoProvider, version: u32) -> Secret {
    let mut secret = vec![0; SECRET_LEN];
    crypto.random(&mut secret);
    Secret {
        version,
        secret: SecretBytes::new(secret),
    }
}

/// RFC 7296 §2.6 shows Hash(Ni | IPi | SPIi | secret); a PRF under the secret is the same with a
/// proof. The nonce comes last because it alone has no fixed length.
fn tag(crypto: &dyn CryptoProvider, secret: &Secret, claim: Claim<'_>) -> SecretBytes {
    crypto.prf(
        Prf::HmacSha256,
        secret.secret.expose(),
        &[&Address::from(claim.source).octets, &claim.spi, claim.nonce],
    )
}
