//! Hostile and odd octets for the parsers, and errors as operators see them.

use proptest::prelude::*;

use super::{ip, sa};
use crate::xfrm::parse::{self, Attributes, Messages, acknowledgement};
use crate::xfrm::types::Request;
use crate::xfrm::{Replay, Sa, SaKernel, XfrmError};

proptest! {
    #[test]
    fn no_octets_make_a_parser_panic(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse::sa(&octets);
        let _ = parse::policy(&octets);
        let _ = parse::expiry(&octets);
        let _ = parse::replay_event(&octets);
        let _ = parse::deleted(&octets);
        prop_assert!(Attributes(&octets).count() <= octets.len());
        for message in Messages(&octets) {
            let _ = acknowledgement(&message);
        }
    }

    #[test]
    fn a_damaged_sa_is_read_or_refused(position in 0usize..400, octet: u8) {
        let mut batch = crate::xfrm::message::Batch::new(2048);
        batch.push(&Request::NewSa(&sa(1)), 1, true);
        let mut octets = batch.bytes()[16..].to_vec();
        let position = position % octets.len();
        octets[position] = octet;
        let _ = parse::sa(&octets);
        let _ = parse::sa(&octets[..position]);
    }
}

/// An `NLMSG_ERROR` as the kernel writes it with `NETLINK_CAP_ACK` and `NETLINK_EXT_ACK`.
fn refusal(errno: i32, words: &str) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend([0u8; 16]);
    let text = [words.as_bytes(), &[0]].concat();
    payload.extend((text.len() as u16 + 4).to_ne_bytes());
    payload.extend(1u16.to_ne_bytes());
    payload.extend(text);
    payload.resize(payload.len().next_multiple_of(4), 0);
    let mut message = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
    message.extend(2u16.to_ne_bytes());
    message.extend(0x300u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    message
}

fn error(errno: i32, words: &str) -> XfrmError {
    let octets = refusal(errno, words);
    let message = Messages(&octets).next().unwrap();
    let (errno, words) = acknowledgement(&message).unwrap();
    XfrmError::refused(&Request::NewSa(&sa(1)), errno, words)
}

#[test]
fn missing_esp_names_the_modules() {
    for (errno, words, fix) in [
        (
            libc::ENOSYS,
            "Requested AEAD algorithm not found",
            "modprobe gcm seqiv drbg",
        ),
        (
            libc::EPROTONOSUPPORT,
            "Requested type not found",
            "modprobe esp4 esp6",
        ),
        (
            libc::ENOENT,
            "Kernel was unable to initialize cryptographic operations",
            "drbg",
        ),
        (libc::EPERM, "", "CAP_NET_ADMIN"),
    ] {
        let text = error(errno, words).to_string();
        assert!(
            text.starts_with("install SA c0000001 to 203.0.113.10: "),
            "{text}"
        );
        assert!(text.contains(words) && text.contains(fix), "{text}");
    }
}

#[test]
fn an_errno_without_words_is_spelled_out() {
    let error = XfrmError::refused(&Request::DeleteSa(&sa(1).id), libc::ESRCH, None);
    assert!(error.is_missing());
    assert!(error.to_string().contains("No such process"), "{error}");
}

#[test]
fn what_the_kernel_would_misunderstand_is_not_sent() {
    let wrong = [
        Sa { reqid: 0, ..sa(1) },
        Sa {
            src: ip("2001:db8::1"),
            ..sa(1)
        },
        Sa {
            key: vec![0u8; 16].as_slice().into(),
            ..sa(1)
        },
        Sa {
            replay: Replay {
                window: 4097,
                esn: false,
            },
            ..sa(1)
        },
        Sa {
            replay: Replay {
                window: 0,
                esn: true,
            },
            ..sa(1)
        },
        Sa {
            id: crate::xfrm::SaId {
                spi: [0, 0, 0, 255],
                ..sa(1).id
            },
            ..sa(1)
        },
    ];
    let mut kernel = crate::xfrm::Recording::new();
    for sa in wrong {
        let error = kernel.install_sa(&sa).unwrap_err();
        assert!(matches!(error, XfrmError::Unsupported(_)), "{error}");
    }
    assert!(kernel.dump_sas().unwrap().is_empty());
}
