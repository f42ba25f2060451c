//! The key schedule: SKEYSEED, SK_*, KEYMAT, and AUTH with a shared key (RFC 7296 §2.13–§2.18).
//!
//! SK_ai and SK_ar stand behind SK_ei and SK_er: encryption and integrity of a direction are one
//! algorithm here, with one key. A combined-mode one has none (RFC 5282 §7: integrity keys have
//! length zero).

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::{CryptoError, CryptoProvider, Encryption, Prf};
use crate::secret::SecretBytes;

/// The pad of RFC 7296 §2.15, without terminating NUL.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// A [`SecretBytes`] that says what it is the key of. Deliberately without `Debug`, so that no
/// structure that holds one can be logged by accident.
macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(SecretBytes);

        impl $name {
            /// From octets that an earlier derivation gave (a record of another member).
            pub fn from_secret(secret: SecretBytes) -> Self {
                Self(secret)
            }

            /// For a record or for the moment of use.
            pub fn secret(&self) -> &SecretBytes {
                &self.0
            }

            /// The octets, for the moment of use only.
            pub fn expose(&self) -> &[u8] {
                self.0.expose()
            }
        }
    };
}

key_type! {
    /// SKEYSEED, from which all keys of an IKE SA are derived (RFC 7296 §2.14, §2.18).
    Skeyseed
}
key_type! {
    /// SK_d, from which the keys of CHILD_SAs and of the successor IKE SA are derived.
    SkD
}
key_type! {
    /// SK_ei or SK_er, which protects one direction's SK payloads: key ‖ salt (RFC 5282 §7.1), or
    /// with SK_ai or SK_ar behind it.
    SkE
}
key_type! {
    /// SK_pi or SK_pr, which binds an identity to the exchange (RFC 7296 §2.15).
    SkP
}

/// prf+(key, seed) of `len` octets (RFC 7296 §2.13). [`CryptoError::WrongLength`] beyond 255 times
/// the PRF's output, where the counter octet would wrap.
pub fn prf_plus(
    crypto: &dyn CryptoProvider,
    prf: Prf,
    key: &[u8],
    seed: &[&[u8]],
    len: usize,
) -> Result<SecretBytes, CryptoError> {
    if len > usize::from(u8::MAX) * prf.output_len() {
        return Err(CryptoError::WrongLength);
    }
    // With the capacity reserved the vector never moves, and leaves no copy behind.
    let mut out = Vec::with_capacity(len.next_multiple_of(prf.output_len()));
    let mut previous = SecretBytes::default();
    let mut counter: u8 = 1;
    while out.len() < len {
        let mut data = Vec::with_capacity(seed.len() + 2);
        data.push(previous.expose());
        data.extend_from_slice(seed);
        let octet = [counter];
        data.push(&octet);
        let block = crypto.prf(prf, key, &data);
        out.extend_from_slice(block.expose());
        previous = block;
        counter = counter.wrapping_add(1);
    }
    // `truncate` leaves the octets behind it in place, but within the capacity that is zeroized.
    out.truncate(len);
    Ok(SecretBytes::new(out))
}

impl Skeyseed {
    /// prf(Ni | Nr, g^ir): of an initial IKE SA (RFC 7296 §2.14).
    pub fn initial(
        crypto: &dyn CryptoProvider,
        prf: Prf,
        nonce_i: &[u8],
        nonce_r: &[u8],
        shared: &SecretBytes,
    ) -> Self {
        let key = [nonce_i, nonce_r].concat();
        Self(crypto.prf(prf, &key, &[shared.expose()]))
    }

    /// prf(SK_d (previous), SK(n) | Ni | Nr): after an additional key exchange of an IKE SA that is
    /// being made (RFC 9370 §2.2.2).
    pub fn additional(
        crypto: &dyn CryptoProvider,
        prf: Prf,
        sk_d: &SkD,
        shared: &SecretBytes,
        nonces: (&[u8], &[u8]),
    ) -> Self {
        let data = [shared.expose(), nonces.0, nonces.1];
        Self(crypto.prf(prf, sk_d.expose(), &data))
    }

    /// prf(SK_d (old), SK(0) | Ni | Nr | SK(1) | … | SK(n)): of an IKE SA that replaces another
    /// (RFC 7296 §2.18, with additional key exchanges RFC 9370 §2.2.4). `old_prf` is the PRF of the
    /// replaced IKE SA; `shared` are SK(0), the g^ir (new) of CREATE_CHILD_SA, to SK(n).
    pub fn rekeyed(
        crypto: &dyn CryptoProvider,
        old_prf: Prf,
        old_sk_d: &SkD,
        shared: &[SecretBytes],
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> Self {
        let seed = seed(shared, nonce_i, nonce_r);
        Self(crypto.prf(old_prf, old_sk_d.expose(), &seed))
    }
}

/// SK(0) | Ni | Nr | SK(1) | … | SK(n), what new keys under an IKE SA are made of; Ni | Nr without
/// any key exchange.
fn seed<'a>(shared: &'a [SecretBytes], nonce_i: &'a [u8], nonce_r: &'a [u8]) -> Vec<&'a [u8]> {
    let (first, additional) = shared.split_at(shared.len().min(1));
    let octets = |secrets: &'a [SecretBytes]| secrets.iter().map(SecretBytes::expose);
    octets(first)
        .chain([nonce_i, nonce_r])
        .chain(octets(additional))
        .collect()
}

/// The keys of one IKE SA. `i` and `r` are the roles in the exchange that made it.
#[derive(Clone, PartialEq, Eq)]
pub struct IkeKeys {
    /// For deriving further keys.
    pub d: SkD,
    /// Protects what the initiator sends.
    pub ei: SkE,
    /// Protects what the responder sends.
    pub er: SkE,
    /// Authenticates the initiator.
    pub pi: SkP,
    /// Authenticates the responder.
    pub pr: SkP,
}

impl IkeKeys {
    /// Zeros in the place of the keys.
    #[must_use]
    pub fn erased(&self) -> Self {
        let zeros = |key: &[u8]| SecretBytes::new(vec![0; key.len()]);
        Self {
            d: SkD(zeros(self.d.expose())),
            ei: SkE(zeros(self.ei.expose())),
            er: SkE(zeros(self.er.expose())),
            pi: SkP(zeros(self.pi.expose())),
            pr: SkP(zeros(self.pr.expose())),
        }
    }

    /// With a post-quantum pre-shared key in SK_d, SK_pi and SK_pr: each is prf+(PPK, itself)
    /// (RFC 8784 §3).
    pub fn with_ppk(
        &self,
        crypto: &dyn CryptoProvider,
        prf: Prf,
        ppk: &SecretBytes,
    ) -> Result<Self, CryptoError> {
        let mix = |key: &[u8]| prf_plus(crypto, prf, ppk.expose(), &[key], key.len());
        Ok(Self {
            d: SkD(mix(self.d.expose())?),
            pi: SkP(mix(self.pi.expose())?),
            pr: SkP(mix(self.pr.expose())?),
            ..self.clone()
        })
    }

    /// The keys after an additional key exchange of an IKE SA that is being made (RFC 9370 §2.2.2).
    pub(crate) fn after_additional(
        &self,
        crypto: &dyn CryptoProvider,
        (prf, encryption): (Prf, Encryption),
        shared: &SecretBytes,
        nonces: (&[u8], &[u8]),
        spis: (&[u8; 8], &[u8; 8]),
    ) -> Result<Self, CryptoError> {
        let skeyseed = Skeyseed::additional(crypto, prf, &self.d, shared, nonces);
        Self::derive(crypto, prf, encryption, &skeyseed, nonces, spis)
    }

    /// {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi |
    /// SPIr), RFC 7296 §2.14. `prf` and `encryption` are those of the IKE SA the keys are for.
    pub fn derive(
        crypto: &dyn CryptoProvider,
        prf: Prf,
        encryption: Encryption,
        skeyseed: &Skeyseed,
        nonces: (&[u8], &[u8]),
        spis: (&[u8; 8], &[u8; 8]),
    ) -> Result<Self, CryptoError> {
        let integrity = encryption.integrity_key_len();
        let cipher = encryption.keymat_len() - integrity;
        let lengths = [
            prf.output_len(),
            integrity,
            integrity,
            cipher,
            cipher,
            prf.output_len(),
            prf.output_len(),
        ];
        let keymat = prf_plus(
            crypto,
            prf,
            skeyseed.expose(),
            &[nonces.0, nonces.1, spis.0, spis.1],
            lengths.iter().sum(),
        )?;
        let [d, ai, ar, ei, er, pi, pr] = cut(&keymat, lengths);
        Ok(Self {
            d: SkD(d),
            ei: SkE(join(&ei, &ai)),
            er: SkE(join(&er, &ar)),
            pi: SkP(pi),
            pr: SkP(pr),
        })
    }
}

/// The keys of one CHILD_SA (RFC 7296 §2.17): for each direction key ‖ salt (RFC 4106 §8.1), or the
/// encryption key and behind it the integrity key.
/// Initiator and responder are those of the exchange that made the CHILD_SA.
#[derive(Clone, PartialEq, Eq)]
pub struct ChildKeys {
    /// For packets from the initiator to the responder.
    pub initiator_to_responder: SecretBytes,
    /// For packets from the responder to the initiator.
    pub responder_to_initiator: SecretBytes,
}

impl ChildKeys {
    /// KEYMAT = prf+(SK_d, [SK(0) |] Ni | Nr [| SK(1) | … | SK(n)]), the initiator's direction
    /// first (RFC 7296 §2.17, RFC 9370 §2.2.4). `prf` is the IKE SA's; `shared` are SK(0), the g^ir
    /// (new) of CREATE_CHILD_SA if that had KE payloads, to SK(n).
    pub fn derive(
        crypto: &dyn CryptoProvider,
        prf: Prf,
        encryption: Encryption,
        sk_d: &SkD,
        shared: &[SecretBytes],
        nonce_i: &[u8],
        nonce_r: &[u8],
    ) -> Result<Self, CryptoError> {
        let lengths = [encryption.keymat_len(); 2];
        let seed = seed(shared, nonce_i, nonce_r);
        let keymat = prf_plus(crypto, prf, sk_d.expose(), &seed, lengths.iter().sum())?;
        let [initiator_to_responder, responder_to_initiator] = cut(&keymat, lengths);
        Ok(Self {
            initiator_to_responder,
            responder_to_initiator,
        })
    }
}

fn join(front: &SecretBytes, back: &SecretBytes) -> SecretBytes {
    SecretBytes::new([front.expose(), back.expose()].concat())
}

/// Cuts `keymat` into pieces of the given lengths, whose sum is its length.
fn cut<const N: usize>(keymat: &SecretBytes, lengths: [usize; N]) -> [SecretBytes; N] {
    let mut rest = keymat.expose();
    lengths.map(|len| {
        let (piece, tail) = rest.split_at(len);
        rest = tail;
        SecretBytes::from(piece)
    })
}

/// What one side's AUTH payload covers (RFC 7296 §2.15).
#[derive(Clone, Copy)]
pub struct AuthInput<'a> {
    /// Its first message (IKE_SA_INIT) in full, as sent: the last one, with cookie if there was
    /// one, from the first octet of the header on.
    pub message: &'a [u8],
    /// The *other* side's nonce, without payload header.
    pub peer_nonce: &'a [u8],
    /// SK_pi for the initiator's AUTH, SK_pr for the responder's.
    pub sk_p: &'a SkP,
    /// Its ID payload without the generic header: type, three reserved octets as sent, data.
    pub id_body: &'a [u8],
    /// IntAuth: what IKE_INTERMEDIATE exchanges add (RFC 9242 §3.3.2); empty without any.
    pub int_auth: &'a [u8],
}

/// AUTH data for the Shared Key Message Integrity Code:
/// prf(prf(secret, "Key Pad for IKEv2"), message | nonce | prf(SK_p, ID') | IntAuth), RFC 7296
/// §2.15, RFC 9242 §3.3.2.
pub fn psk_auth(
    crypto: &dyn CryptoProvider,
    prf: Prf,
    secret: &SecretBytes,
    input: AuthInput<'_>,
) -> Vec<u8> {
    let key = crypto.prf(prf, secret.expose(), &[KEY_PAD]);
    let maced_id = crypto.prf(prf, input.sk_p.expose(), &[input.id_body]);
    let data = [
        input.message,
        input.peer_nonce,
        maced_id.expose(),
        input.int_auth,
    ];
    crypto.prf(prf, key.expose(), &data).expose().to_vec()
}

/// Whether `received` is the AUTH data that [`psk_auth`] gives, in constant time.
pub fn verify_psk_auth(
    crypto: &dyn CryptoProvider,
    prf: Prf,
    secret: &SecretBytes,
    input: AuthInput<'_>,
    received: &[u8],
) -> bool {
    // The right value is as good as a signature until it is used, so it goes the way of keys.
    let expected = Zeroizing::new(psk_auth(crypto, prf, secret, input));
    expected.ct_eq(received).into()
}
