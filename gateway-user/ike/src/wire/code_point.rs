//! Numbers from an IANA registry: open sets, so newtypes with named constants and no enums. A value
//! without a name is carried through unchanged.

/// Defines a registry's newtype: constants, `name()` and a `Display` that falls back to the number.
macro_rules! code_points {
    (
        $(#[$meta:meta])*
        $type:ident($repr:ty) {
            $( $(#[$doc:meta])* $name:ident = $value:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub $repr);

        impl $type {
            $(
                #[doc = concat!(stringify!($value), ".")]
                $(#[$doc])*
                pub const $name: Self = Self($value);
            )*

            /// The registered name, if this release knows it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some(stringify!($name)), )*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($type), self.0),
                }
            }
        }
    };
}
