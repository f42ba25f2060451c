//! Why a packet or a peer goes where it goes: packets are made up as the peer would send them and put
//! through the same look-ups as real ones.

mod subject;

use std::net::IpAddr;

use gateway_common::abi::map;
use gateway_common::member::MemberId;
use gateway_common::packet::IkeHeader;
use gateway_common::reason::Reason;
use gateway_common::slot::Slot;
use gateway_ike::endpoint::SaStatus;
use gateway_ike::output::TrafficSelector;

use self::subject::Subject;
use super::Agent;
use super::live::{Live, Outcome, esp_frame, frame, inside_frame};
use super::pages::{cookie, hex, invalid};
use crate::api::model::{ExplainQuery, Explanation, Finding, LookUp, Packet, Refusal, RefusalKind};
use crate::clock;
use crate::steering::TableError;

/// SAs that one answer explains at most.
const FOUND: usize = 50;
/// SAs that one answer looks at at most: the loop must not be held up.
const EXAMINED: usize = 2000;
/// IKE_SA_INIT and INFORMATIONAL (RFC 7296 §3.1).
const IKE_SA_INIT: u8 = 34;
const INFORMATIONAL: u8 = 37;
/// Any unicast address, where every one counts as ours.
const SOME_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

impl Agent {
    pub(super) fn explain(&self, query: &ExplainQuery) -> Result<Explanation, Refusal> {
        let subject = Subject::of(&query.subject, |name| {
            self.all_connections().any(|known| known.name == name)
        })?;
        let mut findings = Vec::new();
        let first = query.after.is_none();
        let mut next = None;
        match &subject {
            Subject::Packet(octets) => {
                findings.push(self.explain_packet(octets, query.source)?);
            }
            Subject::Cookie(spi) => self.explain_cookie(*spi, query.source, &mut findings)?,
            Subject::Spi(spi) => self.explain_spi(*spi, query.source, &mut findings)?,
            Subject::Address(address) => {
                next = self.explain_sas(query, &mut findings, |sa| {
                    sa.remote.ip() == *address || protects(sa, *address)
                })?;
                if first {
                    findings.extend(self.explain_cleartext(*address, query.source)?);
                    self.explain_negotiations(*address, &mut findings)?;
                    findings.push(self.explain_new(*address, None)?);
                }
            }
            Subject::Connection(name) => {
                if first {
                    findings.push(self.explain_initiation(name));
                }
                next = self.explain_sas(query, &mut findings, |sa| sa.connection == *name)?;
            }
            Subject::Identity(id) => {
                next = self.explain_sas(query, &mut findings, |sa| sa.remote_id == *id)?;
            }
        }
        if findings.is_empty() && next.is_none() && first {
            return Err(Refusal::new(RefusalKind::NotFound, subject.unknown()));
        }
        Ok(Explanation {
            subject: query.subject.clone(),
            kind: subject.kind().into(),
            findings,
            next,
        })
    }

    /// Cleartext to an address, as it comes from inside. `None` if no peer's network has to do with it.
    fn explain_cleartext(
        &self,
        to: IpAddr,
        source: Option<IpAddr>,
    ) -> Result<Option<Finding>, Refusal> {
        let source = source.filter(|source| source.is_ipv4() == to.is_ipv4());
        let source = source.unwrap_or_else(|| documentation(to));
        let Some(frame) = inside_frame(source, to, self.own_mac()?) else {
            return Ok(None);
        };
        let about = format!("cleartext to {to} from an inside network");
        let outcome = self.live(|live| live.inside(&frame))?;
        let concerns = outcome.reason != Reason::InsideUnmatched;
        Ok(concerns.then(|| {
            let meaning = cleartext_meaning(&outcome);
            self.shown(about, &outcome, |_| meaning)
        }))
    }

    fn explain_packet(&self, octets: &str, source: Option<IpAddr>) -> Result<Finding, Refusal> {
        let text = Some(octets.to_owned());
        let packet = match source {
            None => Packet {
                frame: text,
                ..Packet::default()
            },
            Some(_) => Packet {
                message: text,
                source,
                ..Packet::default()
            },
        };
        let about = if source.is_some() {
            "this IKE message"
        } else {
            "this frame"
        };
        self.finding(about.into(), &self.frame_of(&packet)?)
    }

    /// The SAs that `wanted` picks; what comes after those that were looked at.
    fn explain_sas(
        &self,
        query: &ExplainQuery,
        findings: &mut Vec<Finding>,
        wanted: impl Fn(&SaStatus) -> bool,
    ) -> Result<Option<String>, Refusal> {
        let after = query.after.as_deref().map(cookie).transpose()?;
        let mut all = self.node.spis_after(after);
        let (mut last, mut found) = (None, 0);
        for (spi, ..) in all.by_ref().take(EXAMINED) {
            last = Some(spi);
            if let Some((_, sa)) = self.node.shown_sa(clock::now(), spi)
                && wanted(&sa)
            {
                self.explain_sa(&sa, findings)?;
                found += 1;
                if found == FOUND {
                    break;
                }
            }
        }
        let more = all.next().is_some();
        Ok(last.filter(|_| more).map(hex))
    }

    /// IKE and ESP of an established SA.
    fn explain_sa(&self, sa: &SaStatus, findings: &mut Vec<Finding>) -> Result<(), Refusal> {
        let (peer, vip) = (sa.remote.ip(), sa.local.ip());
        let (initiator, responder) = if sa.initiator {
            (sa.local_spi, sa.remote_spi)
        } else {
            (sa.remote_spi, sa.local_spi)
        };
        let message = message(initiator, responder, INFORMATIONAL, !sa.initiator);
        let about = format!(
            "IKE of {} from {}, our SPI {}",
            sa.connection,
            sa.remote,
            hex(sa.local_spi)
        );
        if let Some(frame) = frame(&message, peer, vip, self.own_mac()?) {
            findings.push(self.finding(about, &frame)?);
        }
        for child in &sa.children {
            let about = format!(
                "ESP of {}, child {}, SPI {:08x}",
                sa.connection,
                child.name,
                u32::from_be_bytes(child.spi_in)
            );
            if let Some(frame) = esp_frame(child.spi_in, peer, vip, self.own_mac()?) {
                findings.push(self.finding(about, &frame)?);
            }
        }
        Ok(())
    }

    /// Negotiations that a peer has begun and not finished.
    fn explain_negotiations(
        &self,
        peer: IpAddr,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Refusal> {
        let ownership = self.node.cluster().ownership();
        let theirs = ownership
            .negotiations()
            .map(|(_, opened)| &opened.negotiation)
            .filter(|negotiation| negotiation.peer == peer);
        for negotiation in theirs.take(FOUND) {
            let about = format!(
                "IKE of a negotiation of {peer} that is not finished, our cookie {}",
                hex(negotiation.local_cookie)
            );
            findings.push(self.explain_half_open(about, peer, negotiation.local_cookie)?);
        }
        Ok(())
    }

    fn explain_half_open(
        &self,
        about: String,
        peer: IpAddr,
        local_cookie: [u8; 8],
    ) -> Result<Finding, Refusal> {
        let theirs = *b"any peer";
        let message = message(theirs, local_cookie, INFORMATIONAL, true);
        self.finding(about, &self.frame_to_vip(&message, peer)?)
    }

    /// The first message of a new negotiation.
    fn explain_new(&self, peer: IpAddr, spi: Option<[u8; 8]>) -> Result<Finding, Refusal> {
        let message = message(spi.unwrap_or(*b"new-peer"), [0; 8], IKE_SA_INIT, true);
        let about = match spi {
            Some(spi) => format!("IKE_SA_INIT from {peer} with initiator's SPI {}", hex(spi)),
            None => format!(
                "a new IKE_SA_INIT from {peer}: its initiator's SPI decides the slot, here for {}",
                hex(*b"new-peer")
            ),
        };
        self.finding(about, &self.frame_to_vip(&message, peer)?)
    }

    fn explain_cookie(
        &self,
        spi: [u8; 8],
        source: Option<IpAddr>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Refusal> {
        if let Some((_, sa)) = self.node.shown_sa(clock::now(), spi) {
            return self.explain_sa(&sa, findings);
        }
        let ownership = self.node.cluster().ownership();
        let negotiation = ownership
            .negotiations()
            .map(|(_, opened)| &opened.negotiation)
            .find(|known| known.local_cookie == spi || known.peer_cookie == spi);
        if let Some(known) = negotiation {
            let about = format!(
                "IKE of a negotiation of {} that is not finished, our cookie {}",
                known.peer,
                hex(known.local_cookie)
            );
            findings.push(self.explain_half_open(about, known.peer, known.local_cookie)?);
            return Ok(());
        }
        let Some(source) = source.or_else(|| self.some_peer()) else {
            return Ok(());
        };
        let about = format!("IKE with {} as our cookie, from {source}", hex(spi));
        findings.push(self.explain_half_open(about, source, spi)?);
        findings.push(self.explain_new(source, Some(spi))?);
        Ok(())
    }

    fn explain_spi(
        &self,
        spi: [u8; 4],
        source: Option<IpAddr>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Refusal> {
        for vip in &self.config.cluster.vips {
            let source = source.filter(|source| source.is_ipv4() == vip.is_ipv4());
            let source = source.unwrap_or_else(|| documentation(*vip));
            if let Some(frame) = esp_frame(spi, source, *vip, self.own_mac()?) {
                let spi = u32::from_be_bytes(spi);
                findings.push(self.finding(format!("ESP to {vip} with SPI {spi:08x}"), &frame)?);
            }
        }
        Ok(())
    }

    /// Who brings a connection up.
    fn explain_initiation(&self, name: &str) -> Finding {
        let slot = Slot::for_connection(name);
        let owner = self.node.view().slots.owner(slot);
        let meaning = match owner {
            Some(owner) => format!("member {owner} brings it up, whoever is asked to"),
            None => "nobody owns its slot: it cannot be brought up now".into(),
        };
        let step = LookUp {
            table: map::SLOT_OWNER.into(),
            key: slot.0.to_string(),
            value: owner.map(|owner| format!("member {owner}")),
        };
        let (owner_name, owner_state) = self.known(owner);
        Finding {
            about: format!("connection {name}, as initiator (slot = hash of its name)"),
            steps: vec![step],
            slot: Some(slot.0),
            owner: owner.map_or(0, MemberId::get),
            owner_name,
            owner_state,
            action: None,
            reason: None,
            meaning,
        }
    }

    fn finding(&self, about: String, frame: &[u8]) -> Result<Finding, Refusal> {
        let outcome = self.live(|live| live.ingress(frame))?;
        let meaning = |owner| self.meaning(&outcome, owner);
        Ok(self.shown(about, &outcome, meaning))
    }

    /// Puts something through the look-ups of now.
    fn live(
        &self,
        ask: impl FnOnce(Live<'_>) -> Result<Outcome, TableError>,
    ) -> Result<Outcome, Refusal> {
        let tables = self.steering.tables();
        let lease = self.membership.lease();
        let vips = &self.config.cluster.vips;
        Live::new(tables.as_ref(), vips, lease, clock::now())
            .and_then(ask)
            .map_err(|error| Refusal::new(RefusalKind::Conflict, error.to_string()))
    }

    fn shown(
        &self,
        about: String,
        outcome: &Outcome,
        meaning: impl FnOnce(Option<MemberId>) -> String,
    ) -> Finding {
        let slot = slot_of(&outcome.steps);
        // A packet that stays because its owner cannot be reached has one all the same.
        let owner = outcome
            .member
            .or_else(|| self.node.view().slots.owner(slot?));
        let (owner_name, owner_state) = self.known(owner);
        Finding {
            about,
            slot: slot.map(|slot| slot.0),
            owner: owner.map_or(0, MemberId::get),
            owner_name,
            owner_state,
            action: Some(outcome.action.into()),
            reason: Some(outcome.reason.as_str().into()),
            meaning: meaning(owner),
            steps: outcome.steps.clone(),
        }
    }

    fn meaning(&self, outcome: &Outcome, owner: Option<MemberId>) -> String {
        match (outcome.action, outcome.member, owner) {
            ("forward", Some(member), _) => format!(
                "XDP on this member redirects it over the sync interface to member {member}"
            ),
            ("drop", ..) => "XDP on this member drops it".into(),
            (_, Some(_), _) => "it is this member's own: XDP passes it to the stack here".into(),
            (_, None, Some(owner)) => format!(
                "XDP passes it here, though it is member {owner}'s: it cannot be redirected there, the \
                 agent relays or drops it"
            ),
            (_, None, None) => {
                "XDP passes it to the stack here: it is no packet of the cluster's, or nobody owns \
                 it, and then it is dropped"
                    .into()
            }
        }
    }

    /// Name and state of a member.
    fn known(&self, member: Option<MemberId>) -> (Option<String>, Option<String>) {
        let Some(member) = member else {
            return (None, None);
        };
        let configured = self.config.cluster.members.get(&member);
        let status = self.membership.snapshot().status;
        let heard = status.members.iter().find(|known| known.member == member);
        (
            configured.map(|configured| configured.name.clone()),
            heard.map(|heard| heard.shown.to_string()),
        )
    }

    fn frame_to_vip(&self, message: &[u8], source: IpAddr) -> Result<Vec<u8>, Refusal> {
        let vip = self.vip(source, None)?;
        frame(message, source, vip, self.own_mac()?)
            .ok_or_else(|| invalid("the message is too long for a packet".into()))
    }

    /// An address that stands for any peer.
    fn some_peer(&self) -> Option<IpAddr> {
        self.config
            .cluster
            .vips
            .first()
            .map(|vip| documentation(*vip))
    }

    /// The Ethernet address that packets to this member have.
    pub(super) fn own_mac(&self) -> Result<[u8; 6], Refusal> {
        let settings = self.steering.tables().settings();
        let settings =
            settings.map_err(|error| Refusal::new(RefusalKind::Conflict, error.to_string()))?;
        let [a, b, c, d, e, f, ..] = settings.macs[0];
        let own = [a, b, c, d, e, f];
        Ok(if own == [0; 6] { SOME_MAC } else { own })
    }
}

/// Whether a CHILD_SA of it carries packets to this address.
fn protects(sa: &SaStatus, address: IpAddr) -> bool {
    let to = TrafficSelector::host(address);
    let children = sa.children.iter().flat_map(|child| &child.remote_ts);
    children.into_iter().any(|net| net.intersect(&to).is_some())
}

fn cleartext_meaning(outcome: &Outcome) -> String {
    match (outcome.reason, outcome.member) {
        (Reason::InsideOwned, _) => "this member encrypts it: the tunnel's slot is its own".into(),
        (_, Some(member)) => format!(
            "member {member} encrypts it: XDP on this member redirects it there over the sync \
             interface"
        ),
        (Reason::InsideLocalNet, _) => {
            "it is this member's or its inside networks': it stays here and is not encrypted".into()
        }
        (reason, _) => format!(
            "XDP passes it to the stack here ({}): if another member owns the tunnel, the fence drops \
             what this one encrypts",
            reason.as_str()
        ),
    }
}

/// The slot whose owner was asked for.
fn slot_of(steps: &[LookUp]) -> Option<Slot> {
    let last = steps
        .iter()
        .rev()
        .find(|step| step.table == map::SLOT_OWNER)?;
    last.key.parse().ok().map(Slot)
}

/// An address for documentation (RFC 5737, RFC 3849) of the same family.
const fn documentation(vip: IpAddr) -> IpAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match vip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    }
}

/// The header of an IKE message of a peer's; steering reads nothing else.
fn message(
    initiator: [u8; 8],
    responder: [u8; 8],
    exchange: u8,
    peer_is_initiator: bool,
) -> Vec<u8> {
    let flags = if peer_is_initiator {
        IkeHeader::INITIATOR
    } else {
        0
    };
    let mut octets = [initiator, responder].concat();
    octets.extend([0, 0x20, exchange, flags, 0, 0, 0, 0]);
    octets.extend(28u32.to_be_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use gateway_common::packet::Direction;

    use super::*;

    #[test]
    fn made_up_messages_carry_our_cookie_where_the_peer_puts_it() {
        let ours = *b"our-spi!";
        for peer_is_initiator in [true, false] {
            let (initiator, responder) = if peer_is_initiator {
                (*b"peer-spi", ours)
            } else {
                (ours, *b"peer-spi")
            };
            let octets = message(initiator, responder, INFORMATIONAL, peer_is_initiator);
            let header = IkeHeader::parse(&octets).unwrap();
            assert_eq!(header.our_cookie(Direction::Received), Some(ours));
        }
        let first = message(*b"peer-spi", [0; 8], IKE_SA_INIT, true);
        assert!(IkeHeader::parse(&first).unwrap().opens());
    }
}
