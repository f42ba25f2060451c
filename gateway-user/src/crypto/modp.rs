//! The MODP groups of RFC 3526, by modular exponentiation in constant time.

use std::ptr::{self, NonNull};
use std::sync::LazyLock;

use aws_lc_rs::rand;
use aws_lc_sys::{
    BIGNUM, BN_CTX, BN_CTX_free, BN_CTX_new, BN_MONT_CTX, BN_MONT_CTX_free,
    BN_MONT_CTX_new_for_modulus, BN_bin2bn, BN_bn2bin_padded, BN_clear_free,
    BN_mod_exp_mont_consttime, BN_new,
};
use gateway_ike::crypto::{CryptoError, KeyExchange, KeyExchangeMethod};
use gateway_ike::secret::SecretBytes;

/// All three groups have the generator 2.
const GENERATOR: &[u8] = &[2];

/// A private exponent and 2 to its power.
pub(super) struct Modp {
    method: KeyExchangeMethod,
    private: SecretBytes,
    public: Vec<u8>,
}

/// Octets of a private exponent: at least the higher one of the estimates in RFC 3526 §8, and more
/// than twice the group's strength, which is what a safe prime needs (RFC 7296 §5).
const fn private_len(method: KeyExchangeMethod) -> usize {
    match method {
        KeyExchangeMethod::Modp2048 => 40,
        KeyExchangeMethod::Modp3072 => 56,
        _ => 64,
    }
}

fn group(method: KeyExchangeMethod) -> Result<&'static Group, CryptoError> {
    static MODP_2048: LazyLock<Option<Group>> = LazyLock::new(|| Group::new(P2048));
    static MODP_3072: LazyLock<Option<Group>> = LazyLock::new(|| Group::new(P3072));
    static MODP_4096: LazyLock<Option<Group>> = LazyLock::new(|| Group::new(P4096));
    let group = match method {
        KeyExchangeMethod::Modp2048 => &MODP_2048,
        KeyExchangeMethod::Modp3072 => &MODP_3072,
        KeyExchangeMethod::Modp4096 => &MODP_4096,
        _ => return Err(CryptoError::Library),
    };
    group.as_ref().ok_or(CryptoError::Library)
}

impl Modp {
    pub(super) fn generate(method: KeyExchangeMethod) -> Result<Self, CryptoError> {
        let mut private = vec![0; private_len(method)];
        rand::fill(&mut private).map_err(|_| CryptoError::Library)?;
        Self::import(method, &SecretBytes::new(private))
    }

    /// From octets as [`KeyExchange::export`] gives them out.
    pub(super) fn import(
        method: KeyExchangeMethod,
        private: &SecretBytes,
    ) -> Result<Self, CryptoError> {
        if private.len() != private_len(method) {
            return Err(CryptoError::WrongLength);
        }
        let public = group(method)?.power(GENERATOR, private.expose())?;
        Ok(Self {
            method,
            private: private.clone(),
            public,
        })
    }
}

impl KeyExchange for Modp {
    fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(&self, answer: &[u8]) -> Result<SecretBytes, CryptoError> {
        let group = group(self.method)?;
        // RFC 6989 §2.1: p is a safe prime, so with 1 < value < p − 1 nothing is leaked.
        if !group.admits(answer) {
            return Err(CryptoError::InvalidPublicValue);
        }
        group
            .power(answer, self.private.expose())
            .map(SecretBytes::new)
    }

    fn export(&self) -> SecretBytes {
        self.private.clone()
    }
}

/// An odd prime, ready for Montgomery multiplication.
struct Group {
    octets: Vec<u8>,
    prime: Number,
    montgomery: NonNull<BN_MONT_CTX>,
}

// SAFETY: nothing changes after `new`, and the library only reads what it gets as const.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    /// From hexadecimal digits and white space.
    fn new(prime: &str) -> Option<Self> {
        let digits: Vec<u8> = prime
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .filter_map(|digit| u8::try_from(digit).ok())
            .collect();
        let octets: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        let prime = Number::from_octets(&octets)?;
        let context = Context::new()?;
        // SAFETY: both pointers are valid and not null; the result is a new object or null.
        let montgomery =
            unsafe { BN_MONT_CTX_new_for_modulus(prime.0.as_ptr(), context.0.as_ptr()) };
        Some(Self {
            octets,
            prime,
            montgomery: NonNull::new(montgomery)?,
        })
    }

    /// Whether 1 < value < p − 1, in as many octets as p has.
    fn admits(&self, value: &[u8]) -> bool {
        let (Some((&last, front)), Some((&last_of_prime, front_of_prime))) =
            (value.split_last(), self.octets.split_last())
        else {
            return false;
        };
        // p is odd: p − 1 differs in the last octet only.
        value.len() == self.octets.len()
            && (front.iter().any(|&octet| octet != 0) || last > 1)
            && (front, last) < (front_of_prime, last_of_prime - 1)
    }

    /// base^exponent mod p in as many octets as p has, in a time that depends on the length of the
    /// exponent only. The base is below p.
    fn power(&self, base: &[u8], exponent: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let power = || {
            let base = Number::from_octets(base)?;
            let exponent = Number::from_octets(exponent)?;
            let result = Number::new()?;
            let context = Context::new()?;
            // SAFETY: all pointers are valid and not null, and the result is none of the inputs.
            let done = unsafe {
                BN_mod_exp_mont_consttime(
                    result.0.as_ptr(),
                    base.0.as_ptr(),
                    exponent.0.as_ptr(),
                    self.prime.0.as_ptr(),
                    context.0.as_ptr(),
                    self.montgomery.as_ptr(),
                )
            };
            (done == 1).then_some(())?;
            result.to_octets(self.octets.len())
        };
        power().ok_or(CryptoError::Library)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by the library, and freed once.
        unsafe { BN_MONT_CTX_free(self.montgomery.as_ptr()) }
    }
}

/// A number of the library's. Scrubbed when it is freed.
struct Number(NonNull<BIGNUM>);

impl Number {
    fn new() -> Option<Self> {
        // SAFETY: takes nothing; the result is a new object or null.
        NonNull::new(unsafe { BN_new() }).map(Self)
    }

    fn from_octets(octets: &[u8]) -> Option<Self> {
        // SAFETY: pointer and length are those of a slice; with a null third argument the result is
        // a new object or null.
        NonNull::new(unsafe { BN_bin2bn(octets.as_ptr(), octets.len(), ptr::null_mut()) }).map(Self)
    }

    /// Big endian; `None` if it has more octets.
    fn to_octets(&self, len: usize) -> Option<Vec<u8>> {
        let mut octets = vec![0; len];
        // SAFETY: pointer and length are those of a buffer; the number is valid.
        let done = unsafe { BN_bn2bin_padded(octets.as_mut_ptr(), len, self.0.as_ptr()) };
        (done == 1).then_some(octets)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: made by the library, and freed once.
        unsafe { BN_clear_free(self.0.as_ptr()) }
    }
}

/// Scratch space of the library's.
struct Context(NonNull<BN_CTX>);

impl Context {
    fn new() -> Option<Self> {
        // SAFETY: takes nothing; the result is a new object or null.
        NonNull::new(unsafe { BN_CTX_new() }).map(Self)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by the library, and freed once.
        unsafe { BN_CTX_free(self.0.as_ptr()) }
    }
}

// RFC 3526 §3, §4, §5.
const P2048: &str = "\
    FFFFFFFFFFFFFFFF C90FDAA22168C234 C4C6628B80DC1CD1 29024E088A67CC74 \
    020BBEA63B139B22 514A08798E3404DD EF9519B3CD3A431B 302B0A6DF25F1437 \
    4FE1356D6D51C245 E485B576625E7EC6 F44C42E9A637ED6B 0BFF5CB6F406B7ED \
    EE386BFB5A899FA5 AE9F24117C4B1FE6 49286651ECE45B3D C2007CB8A163BF05 \
    98DA48361C55D39A 69163FA8FD24CF5F 83655D23DCA3AD96 1C62F356208552BB \
    9ED529077096966D 670C354E4ABC9804 F1746C08CA18217C 32905E462E36CE3B \
    E39E772C180E8603 9B2783A2EC07A28F B5C55DF06F4C52C9 DE2BCBF695581718 \
    3995497CEA956AE5 15D2261898FA0510 15728E5A8AACAA68 FFFFFFFFFFFFFFFF";

const P3072: &str = "\
    FFFFFFFFFFFFFFFF C90FDAA22168C234 C4C6628B80DC1CD1 29024E088A67CC74 \
    020BBEA63B139B22 514A08798E3404DD EF9519B3CD3A431B 302B0A6DF25F1437 \
    4FE1356D6D51C245 E485B576625E7EC6 F44C42E9A637ED6B 0BFF5CB6F406B7ED \
    EE386BFB5A899FA5 AE9F24117C4B1FE6 49286651ECE45B3D C2007CB8A163BF05 \
    98DA48361C55D39A 69163FA8FD24CF5F 83655D23DCA3AD96 1C62F356208552BB \
    9ED529077096966D 670C354E4ABC9804 F1746C08CA18217C 32905E462E36CE3B \
    E39E772C180E8603 9B2783A2EC07A28F B5C55DF06F4C52C9 DE2BCBF695581718 \
    3995497CEA956AE5 15D2261898FA0510 15728E5A8AAAC42D AD33170D04507A33 \
    A85521ABDF1CBA64 ECFB850458DBEF0A 8AEA71575D060C7D B3970F85A6E1E4C7 \
    ABF5AE8CDB0933D7 1E8C94E04A25619D CEE3D2261AD2EE6B F12FFA06D98A0864 \
    D87602733EC86A64 521F2B18177B200C BBE117577A615D6C 770988C0BAD946E2 \
    08E24FA074E5AB31 43DB5BFCE0FD108E 4B82D120A93AD2CA FFFFFFFFFFFFFFFF";

const P4096: &str = "\
    FFFFFFFFFFFFFFFF C90FDAA22168C234 C4C6628B80DC1CD1 29024E088A67CC74 \
    020BBEA63B139B22 514A08798E3404DD EF9519B3CD3A431B 302B0A6DF25F1437 \
    4FE1356D6D51C245 E485B576625E7EC6 F44C42E9A637ED6B 0BFF5CB6F406B7ED \
    EE386BFB5A899FA5 AE9F24117C4B1FE6 49286651ECE45B3D C2007CB8A163BF05 \
    98DA48361C55D39A 69163FA8FD24CF5F 83655D23DCA3AD96 1C62F356208552BB \
    9ED529077096966D 670C354E4ABC9804 F1746C08CA18217C 32905E462E36CE3B \
    E39E772C180E8603 9B2783A2EC07A28F B5C55DF06F4C52C9 DE2BCBF695581718 \
    3995497CEA956AE5 15D2261898FA0510 15728E5A8AAAC42D AD33170D04507A33 \
    A85521ABDF1CBA64 ECFB850458DBEF0A 8AEA71575D060C7D B3970F85A6E1E4C7 \
    ABF5AE8CDB0933D7 1E8C94E04A25619D CEE3D2261AD2EE6B F12FFA06D98A0864 \
    D87602733EC86A64 521F2B18177B200C BBE117577A615D6C 770988C0BAD946E2 \
    08E24FA074E5AB31 43DB5BFCE0FD108E 4B82D120A9210801 1A723C12A787E6D7 \
    88719A10BDBA5B26 99C327186AF4E23C 1A946834B6150BDA 2583E9CA2AD44CE8 \
    DBBBC2DB04DE8EF9 2E8EFC141FBECAA6 287C59474E6BC05D 99B2964FA090C3A2 \
    233BA186515BE7ED 1F612970CEE2D7AF B81BDD762170481C D0069127D5B05AA9 \
    93B4EA988D8FDDC1 86FFB7DC90A6C08F 4DF435C934063199 FFFFFFFFFFFFFFFF";
