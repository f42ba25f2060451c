//! Additional key exchanges (RFC 9370).

use crate::crypto::KeyExchangeMethod;
use crate::wire::TransformType;

/// How many additional key exchanges there can be: transform types 6 to 12.
pub const MAX_ADDITIONAL_KES: usize = 7;

/// The transform types of additional key exchanges, in the order in which they are performed.
pub(super) const ADDITIONAL_TYPES: [TransformType; MAX_ADDITIONAL_KES] = [
    TransformType::ADDKE1,
    TransformType::ADDKE2,
    TransformType::ADDKE3,
    TransformType::ADDKE4,
    TransformType::ADDKE5,
    TransformType::ADDKE6,
    TransformType::ADDKE7,
];

/// Key exchanges beside the first one: for each of the seven transform types a method or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdditionalKes([Option<KeyExchangeMethod>; MAX_ADDITIONAL_KES]);

impl AdditionalKes {
    /// No additional key exchange.
    pub const NONE: Self = Self([None; MAX_ADDITIONAL_KES]);

    /// By transform type, ADDKE1 first.
    pub const fn new(methods: [Option<KeyExchangeMethod>; MAX_ADDITIONAL_KES]) -> Self {
        Self(methods)
    }

    /// By transform type, ADDKE1 first.
    pub const fn by_type(&self) -> &[Option<KeyExchangeMethod>; MAX_ADDITIONAL_KES] {
        &self.0
    }

    /// Those that are performed, in order.
    pub fn iter(&self) -> impl Iterator<Item = KeyExchangeMethod> + '_ {
        self.0.iter().copied().flatten()
    }

    /// How many are performed.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether none is performed.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// Whether a method comes twice, which RFC 9370 §2.2.1 forbids.
    pub fn has_duplicates(&self) -> bool {
        let methods: Vec<_> = self.iter().collect();
        (1..methods.len()).any(|at| methods[..at].contains(&methods[at]))
    }

    /// All combinations of the alternatives of each type (none for a type without), those with
    /// duplicates left out.
    pub(super) fn combinations(
        alternatives: &[Vec<Option<KeyExchangeMethod>>; MAX_ADDITIONAL_KES],
    ) -> Vec<Self> {
        let mut all = vec![Self::NONE];
        for (at, methods) in alternatives.iter().enumerate() {
            if methods.is_empty() {
                continue;
            }
            all = all
                .iter()
                .flat_map(|one| {
                    methods.iter().map(|method| {
                        let mut one = *one;
                        one.0[at] = *method;
                        one
                    })
                })
                .filter(|one| !one.has_duplicates())
                .collect();
        }
        all
    }
}
