//! The secret behind the cookies of IKE_SA_INIT (RFC 7296 §2.6): one for the cluster, drawn by the
//! owner of slot 0.

use std::time::Duration;

use gateway_cluster::change::{Change, Mirror};
use gateway_cluster::secret::Secret;
use gateway_common::{slot::Slot, time::Instant};
use gateway_ike::endpoint::Command;
use gateway_ike::secret::SecretBytes;

use crate::node::Node;

/// Octets of version and secret.
const LEN: usize = 4 + 32;

/// A secret is used for so long. A cookie is good under its successor, too.
const LIFETIME: Duration = Duration::from_secs(120);

/// Slot of the member that draws it.
const SLOT: Slot = Slot(0);

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    version: u32,
    /// When it is to be replaced; `None` if there is none.
    due: Option<Instant>,
}

impl Node {
    /// When this member has to draw a new secret.
    pub(crate) fn next_cookie_secret(&self) -> Option<Instant> {
        self.cookies.due.filter(|_| self.cluster.serves(SLOT))
    }

    /// Draws a secret if it is this member's turn and there is none, or it is old.
    pub(crate) fn refresh_cookies(&mut self, now: Instant) {
        let fresh = self.cookies.due.is_some_and(|due| now < due);
        if fresh || !self.serves(now, SLOT) {
            return;
        }
        let mut octets = [0; LEN];
        self.crypto.random(&mut octets);
        octets[..4].copy_from_slice(&self.cookies.version.wrapping_add(1).to_be_bytes());
        let secret = Secret::from(&octets[..]);
        let change = Change::CookieSecret(Secret::from(&octets[..]));
        // Who is not level yet tries again with its next timer.
        if self
            .cluster
            .publish(now, SLOT, change, Mirror::Background)
            .is_ok()
        {
            self.take_cookie_secret(now, &secret);
        } else {
            self.cookies.due = Some(now + Duration::from_secs(1));
        }
    }

    /// The cluster's secret is this one now.
    pub(crate) fn take_cookie_secret(&mut self, now: Instant, secret: &Secret) {
        let Some((version, secret)) = secret.expose().split_first_chunk::<4>() else {
            return;
        };
        self.cookies.version = u32::from_be_bytes(*version);
        self.cookies.due = Some(now + LIFETIME);
        let command = Command::SetCookieSecret {
            version: self.cookies.version,
            secret: SecretBytes::from(secret),
        };
        self.endpoint.handle_command(now, command);
    }
}
