//! What the driver may ask for.

use crate::record::IkeSaRecord;
use crate::secret::SecretBytes;

/// An order from the driver.
#[derive(Debug)]
pub enum Command {
    /// Mints and accepts cookies under this secret from now on, and accepts those of the one before
    /// (RFC 7296 §2.6). From the first one on the endpoint draws none of its own: all members of a
    /// cluster must agree.
    SetCookieSecret {
        /// Told apart from the last one by this; stands in the cookie.
        version: u32,
        /// At least 16 unpredictable octets.
        secret: SecretBytes,
    },
    /// Goes on with an IKE SA from a record. Nothing is sent and the kernel is asked for nothing:
    /// its CHILD_SAs stand there already or are none of the engine's business. An IKE SA with the
    /// same SPI is replaced.
    Import(Box<IkeSaRecord>),
    /// Forgets an IKE SA that another member goes on with. Nothing is sent, the kernel is asked
    /// for nothing.
    Forget {
        /// Our SPI, network order.
        local_spi: [u8; 8],
    },
}
