//! Errors of the kernel's SAD and SPD, each with the fix where there is one.

use std::{fmt, io};

use super::types::Request;

/// What went wrong. No variant holds key material.
#[derive(Debug, thiserror::Error)]
pub enum XfrmError {
    /// The kernel refused a request.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The netlink socket failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer cannot be understood.
    #[error("unexpected netlink answer: {0}")]
    Protocol(&'static str),
    /// The request cannot be expressed in XFRM; nothing was sent.
    #[error("{0}")]
    Unsupported(String),
}

/// The kernel's "no" to one request.
#[derive(Debug)]
pub struct Refusal {
    /// What was asked for, without keys.
    pub operation: String,
    /// `errno`, positive.
    pub errno: i32,
    /// The kernel's own words (NETLINK_EXT_ACK), if it had any.
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match &self.message {
            Some(message) => write!(f, "{message} (error {})", self.errno)?,
            None => write!(f, "{}", io::Error::from_raw_os_error(self.errno))?,
        }
        match self.fix() {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl Refusal {
    /// What an operator can do about it. Goes by the errno, and by the kernel's words only where
    /// one errno has several causes.
    pub fn fix(&self) -> Option<&'static str> {
        let message = self.message.as_deref().unwrap_or("");
        let sa = self.operation.contains("SA");
        match self.errno {
            libc::EPERM | libc::EACCES => Some("run as root or give the process CAP_NET_ADMIN"),
            // The algorithm's name is unknown, or the module that implements it cannot be set up.
            libc::ENOSYS | libc::ENOENT if sa => Some(
                "this kernel has no AES-GCM for ESP loaded: modprobe gcm seqiv drbg aes_generic, \
                 or build it with CONFIG_CRYPTO_GCM and CONFIG_CRYPTO_SEQIV; without them use \
                 kernel.backend = \"recording\"",
            ),
            libc::EPROTONOSUPPORT if sa => Some(
                "this kernel has no ESP loaded: modprobe esp4 esp6, or build it with \
                 CONFIG_INET_ESP and CONFIG_INET6_ESP; without them use \
                 kernel.backend = \"recording\"",
            ),
            libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT => {
                Some("this kernel has no XFRM: it needs CONFIG_XFRM_USER")
            }
            libc::EINVAL if message.contains("cryptographic") => Some("modprobe drbg gcm seqiv"),
            libc::EEXIST if sa => {
                Some("the SPI is taken at that address, by another peer or another IKE daemon")
            }
            libc::ENOBUFS | libc::ENOMEM => Some("raise net.core.rmem_max or free memory"),
            _ => None,
        }
    }
}

impl XfrmError {
    /// The kernel said `errno` (positive) to `request`.
    pub(super) fn refused(request: &Request<'_>, errno: i32, message: Option<String>) -> Self {
        Self::refused_operation(request.to_string(), errno, message)
    }

    /// The kernel said `errno` (positive) to something that is no [`Request`].
    pub(super) fn refused_operation(
        operation: String,
        errno: i32,
        message: Option<String>,
    ) -> Self {
        Self::Refused(Box::new(Refusal {
            operation,
            errno,
            message,
        }))
    }

    /// The socket failed with the last OS error.
    pub(super) fn last_os(context: &'static str) -> Self {
        Self::Io {
            context,
            source: io::Error::last_os_error(),
        }
    }

    /// The kernel's errno, positive, if it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            _ => None,
        }
    }

    /// Such an SA or policy is there already.
    pub fn exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// There is no such SA (ESRCH) or policy (ENOENT).
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Refused(refusal) => match refusal.errno {
                libc::ESRCH => true,
                libc::ENOENT => refusal.operation.contains("policy"),
                _ => false,
            },
            _ => false,
        }
    }
}
