//! What operators and packets ask for, on whatever member: it is carried out by the owner.

use std::collections::BTreeSet;
use std::fmt;

use gateway_common::{member::MemberId, slot::Slot, time::Instant};
use gateway_ike::endpoint::{Command, SaStatus, Target};

use crate::node::Node;

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bring it up.
    Initiate,
    /// Delete its IKE SAs, or one kind of its CHILD_SAs, with a DELETE to the peer.
    Terminate,
    /// Make successors.
    Rekey,
}

/// Something to be done about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub what: What,
    /// The connection's name.
    pub connection: String,
    /// Name of its child; `None`: all of them, or the IKE SA.
    pub child: Option<String>,
}

/// What has become of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It was begun here this often.
    pub here: usize,
    /// It was passed on to these members.
    pub passed_on: BTreeSet<MemberId>,
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such connection, or none that can be initiated.
    #[error(
        "connection {0} cannot be initiated: it is not configured, or its remote_addrs has no \
         single address of a family that we have an address of"
    )]
    NotInitiable(String),
    /// The connection has no such child.
    #[error("connection {0} has no child {1}")]
    NoChild(String, String),
    /// There is nothing that it could be about.
    #[error("connection {0} has no such SA")]
    NothingThere(String),
    /// Nobody who can be reached may carry it out.
    #[error("the owner of slot {0} cannot be reached now")]
    NoOwner(Slot),
}

impl Order {
    /// As octets: what, length of the connection's name, the name, the child's name.
    fn encode(&self) -> Vec<u8> {
        let what = match self.what {
            What::Initiate => 1,
            What::Terminate => 2,
            What::Rekey => 3,
        };
        let mut octets = vec![what];
        octets.extend_from_slice(&(self.connection.len() as u32).to_be_bytes());
        octets.extend_from_slice(self.connection.as_bytes());
        octets.extend_from_slice(self.child.as_deref().unwrap_or_default().as_bytes());
        octets
    }

    /// `None` for what another release has written.
    fn decode(octets: &[u8]) -> Option<Self> {
        let (what, rest) = octets.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let (connection, child) = rest.split_at_checked(len)?;
        let text = |octets: &[u8]| std::str::from_utf8(octets).ok().map(str::to_owned);
        Some(Self {
            what: match what {
                1 => What::Initiate,
                2 => What::Terminate,
                3 => What::Rekey,
                _ => return None,
            },
            connection: text(connection)?,
            child: text(child).filter(|child| !child.is_empty()),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.here > 0 {
            f.write_str("begun on this member")?;
        }
        for (index, member) in self.passed_on.iter().enumerate() {
            let separator = if self.here > 0 || index > 0 { ", " } else { "" };
            write!(f, "{separator}passed on to member {member}")?;
        }
        Ok(())
    }
}

impl Node {
    /// Carries out an order, or passes it on to whoever may. What comes of it, events say.
    ///
    /// # Errors
    /// [`Refused`]; then nothing was done.
    pub fn handle_order(&mut self, now: Instant, order: &Order) -> Result<Outcome, Refused> {
        let outcome = self.carry_out_order(now, order, true);
        self.collect(now);
        outcome
    }

    /// Another member has passed an order on. Who is not the owner any more lets it be: the packet
    /// or the operator asks again.
    pub(crate) fn take_order(&mut self, now: Instant, octets: &[u8]) {
        if let Some(order) = Order::decode(octets) {
            let _ = self.carry_out_order(now, &order, false);
        }
    }

    fn carry_out_order(
        &mut self,
        now: Instant,
        order: &Order,
        pass_on: bool,
    ) -> Result<Outcome, Refused> {
        match order.what {
            What::Initiate => self.initiate(now, order, pass_on),
            What::Terminate | What::Rekey => self.command_sas(now, order, pass_on),
        }
    }

    fn initiate(&mut self, now: Instant, order: &Order, pass_on: bool) -> Result<Outcome, Refused> {
        let name = &order.connection;
        let connection = self
            .start
            .connection(name)
            .cloned()
            .ok_or_else(|| Refused::NotInitiable(name.clone()))?;
        if let Some(child) = &order.child
            && connection.children.iter().all(|known| known.name != *child)
        {
            return Err(Refused::NoChild(name.clone(), child.clone()));
        }
        // Further children join the IKE SA that is there, wherever that is.
        let live = self.start.live(name);
        let slot = live
            .and_then(|spi| self.cluster.ownership().sa(spi))
            .map_or_else(|| Slot::for_connection(name), |held| held.slot);
        if !self.serves(now, slot) {
            return self.pass_on(slot, order, pass_on);
        }
        if let Some(spi) = live {
            self.wake(now, spi);
        }
        let children = order.child.iter().cloned().collect();
        let order = self.initiate_order(&connection, children, false);
        self.endpoint.handle_command(now, Command::Initiate(order));
        Ok(Outcome {
            here: 1,
            ..Outcome::default()
        })
    }

    fn pass_on(&mut self, slot: Slot, order: &Order, pass_on: bool) -> Result<Outcome, Refused> {
        let owner = self.view().slots.owner(slot);
        let reached = owner
            .filter(|owner| pass_on && *owner != self.local())
            .filter(|owner| self.cluster.order(*owner, order.encode()));
        match reached {
            Some(owner) => Ok(Outcome {
                here: 0,
                passed_on: BTreeSet::from([owner]),
            }),
            None => Err(Refused::NoOwner(slot)),
        }
    }

    /// Deletes or rekeys what there is of a connection.
    fn command_sas(
        &mut self,
        now: Instant,
        order: &Order,
        pass_on: bool,
    ) -> Result<Outcome, Refused> {
        let name = &order.connection;
        let found: Vec<SaStatus> = self
            .sas(now)
            .map(|(_, sa)| sa)
            .filter(|sa| sa.connection == *name)
            .collect();
        let mut outcome = Outcome::default();
        let mut failure = None;
        if order.what == What::Terminate && order.child.is_none() {
            let connection = name.clone();
            self.endpoint
                .handle_command(now, Command::Relinquish { connection });
        }
        for sa in found {
            let targets = targets(&sa, order.child.as_deref());
            if targets.is_empty() {
                continue;
            }
            if !self.serves(now, sa.slot) {
                match self.pass_on(sa.slot, order, pass_on) {
                    Ok(passed) => outcome.passed_on.extend(passed.passed_on),
                    Err(error) => failure = Some(error),
                }
                continue;
            }
            self.wake(now, sa.local_spi);
            for target in targets {
                outcome.here += 1;
                self.endpoint.handle_command(
                    now,
                    match order.what {
                        What::Rekey => Command::Rekey(target),
                        What::Initiate | What::Terminate => Command::Terminate(target),
                    },
                );
            }
        }
        if outcome == Outcome::default() {
            return Err(failure.unwrap_or_else(|| Refused::NothingThere(name.clone())));
        }
        Ok(outcome)
    }
}

/// The IKE SA, or its children of a name.
fn targets(sa: &SaStatus, child: Option<&str>) -> Vec<Target> {
    match child {
        None => vec![Target::Ike(sa.local_spi)],
        Some(name) => sa
            .children
            .iter()
            .filter(|child| child.name == name)
            .map(|child| Target::Child(child.spi_in))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_encoding() {
        for child in [None, Some("net".to_owned())] {
            let order = Order {
                what: What::Rekey,
                connection: "site".to_owned(),
                child,
            };
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        assert_eq!(Order::decode(&[9, 0, 0, 0, 0]), None);
        assert_eq!(Order::decode(&[1, 0, 0, 0, 7, b'x']), None);
    }
}
