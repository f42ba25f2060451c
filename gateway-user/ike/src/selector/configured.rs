//! Selectors as they stand in a configuration, where the tunnel's own address has no number yet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::text::{self, SelectorError};
use super::{TrafficSelector, common_protocol};

/// A configured traffic selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorConfig {
    /// Known before there is a tunnel.
    Fixed(TrafficSelector),
    /// swanctl's `dynamic`: the tunnel's own outer address of that side, as the IKE SA has it when
    /// the CHILD_SA is negotiated.
    Dynamic {
        /// IP protocol, 0 = any.
        protocol: u8,
        /// First port, or type and code of ICMP.
        start_port: u16,
        /// Last port.
        end_port: u16,
    },
}

impl SelectorConfig {
    /// All protocols and ports of the tunnel's own address.
    pub const DYNAMIC: Self = Self::Dynamic {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
    };

    /// What is negotiated by an IKE SA whose end on this side is `host`.
    pub fn resolve(&self, host: IpAddr) -> TrafficSelector {
        match *self {
            Self::Fixed(selector) => selector,
            Self::Dynamic {
                protocol,
                start_port,
                end_port,
            } => TrafficSelector::host(host)
                .with_protocol(protocol)
                .with_ports(start_port, end_port),
        }
    }

    /// What does not depend on a tunnel's address.
    pub fn fixed(&self) -> Option<TrafficSelector> {
        match self {
            Self::Fixed(selector) => Some(*selector),
            Self::Dynamic { .. } => None,
        }
    }

    /// Whether it is the tunnel's own address.
    pub fn is_dynamic(&self) -> bool {
        self.fixed().is_none()
    }

    /// Whether packets can have one end in each; of a tunnel's own address the family is not known.
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        let parts = |config: &Self| match *config {
            Self::Fixed(selector) => (Some(selector.is_ipv4()), selector.protocol),
            Self::Dynamic { protocol, .. } => (None, protocol),
        };
        let ((a, p), (b, q)) = (parts(self), parts(other));
        let families = a.zip(b).is_none_or(|(a, b)| a == b);
        families && common_protocol(p, q).is_some()
    }
}

impl From<TrafficSelector> for SelectorConfig {
    fn from(selector: TrafficSelector) -> Self {
        Self::Fixed(selector)
    }
}

/// As a [`TrafficSelector`], or `dynamic`, with `[protocol]` or `[protocol/port]` behind it if
/// wanted.
impl FromStr for SelectorConfig {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.trim().strip_prefix("dynamic") else {
            return text.parse().map(Self::Fixed);
        };
        let host = TrafficSelector::host(Ipv4Addr::UNSPECIFIED.into());
        let like = text::parse_upper(host, rest.trim_start()).map_err(|problem| SelectorError {
            text: text.to_owned(),
            problem,
        })?;
        Ok(Self::Dynamic {
            protocol: like.protocol,
            start_port: like.start_port,
            end_port: like.end_port,
        })
    }
}

impl fmt::Display for SelectorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(selector) => selector.fmt(f),
            Self::Dynamic { .. } => {
                f.write_str("dynamic")?;
                text::write_upper(&self.resolve(Ipv4Addr::UNSPECIFIED.into()), f)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SelectorConfig {
        text.parse().unwrap()
    }

    #[test]
    fn dynamic_is_the_address_of_the_tunnel_with_its_protocol_and_ports() {
        let host: IpAddr = "203.0.113.10".parse().unwrap();
        for (text, resolved) in [
            ("dynamic", "203.0.113.10/32"),
            ("dynamic[tcp/443]", "203.0.113.10/32[tcp/443]"),
            ("dynamic[udp/8000-8010]", "203.0.113.10/32[udp/8000-8010]"),
            ("dynamic[gre]", "203.0.113.10/32[gre]"),
            ("dynamic[icmp/8]", "203.0.113.10/32[icmp/8]"),
        ] {
            let selector = parse(text);
            assert_eq!(selector.to_string(), text);
            assert_eq!(selector.resolve(host).to_string(), resolved);
            assert_eq!(selector.fixed(), None);
        }
        let host: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            SelectorConfig::DYNAMIC.resolve(host).to_string(),
            "2001:db8::1/128"
        );
        let fixed = parse("10.1.0.0/16[tcp]");
        assert_eq!(fixed.resolve(host), "10.1.0.0/16[tcp]".parse().unwrap());
    }

    #[test]
    fn what_is_behind_dynamic_has_to_be_a_protocol() {
        for (text, problem) in [
            ("dynamics", "\"s\" is no protocol"),
            ("dynamic/32", "\"/32\" is no protocol"),
            ("dynamic[tcp", "without \"]\""),
            ("dynamic[nonsense]", "not a protocol"),
            ("dynamic[gre/1]", "no ports"),
        ] {
            let error = text.parse::<SelectorConfig>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
