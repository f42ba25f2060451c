//! Answers that come in pages, or that only the REST API asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_common::member::MemberId;
use gateway_ike::endpoint::SaStatus;
use gateway_ike::output::ChildId;

use super::Agent;
use super::answers::ike_sa;
use super::membership::Snapshot;
use crate::api::model::{
    IkeSaInfo, Interfaces, PAGE, Refusal, RefusalKind, SaPage, SaQuery, SteeredInterface,
};
use crate::clock;
use crate::steering::FenceHook;

/// What one turn of the loop does for a page: peers' exchanges wait meanwhile. The page is short then,
/// and who wants more asks again.
const SPAN: Duration = Duration::from_millis(2);
/// The clock is read once in so many IKE SAs that are looked at without being opened.
const LOOKS: usize = 64;

impl Agent {
    /// A page of IKE SAs; a part of one, if it would take too long.
    pub(super) fn sa_page(&mut self, query: &SaQuery) -> Result<SaPage, Refusal> {
        let now = clock::now();
        let after = query.after.as_deref().map(cookie).transpose()?;
        let limit = usize::from(limit(query.limit)?);
        let mut found: Vec<(Option<MemberId>, SaStatus)> = Vec::new();
        let over = |span: Duration| clock::now() - now > span;
        let (mut last, mut looked) = (None, 0);
        let mut all = self.node.spis_after(after);
        while found.len() < limit {
            looked += 1;
            if looked % LOOKS == 0 && over(SPAN) {
                break;
            }
            let Some((spi, owner, connection)) = all.next() else {
                last = None;
                break;
            };
            last = Some(spi);
            if !may_match(query, owner, connection) {
                continue;
            }
            let shown = self.node.shown_sa(now, spi);
            found.extend(shown.filter(|(_, sa)| matches(query, sa)));
            if over(SPAN) {
                break;
            }
        }
        let more = last.is_some() && all.next().is_some();
        drop(all);
        let mut next = last.filter(|_| more).map(hex);
        let mut ike_sas = Vec::new();
        for (index, (owner, sa)) in found.iter().enumerate() {
            ike_sas.push(self.counted(*owner, sa));
            // The kernel is slow to count: the rest is for the next turn.
            if index + 1 < found.len() && over(SPAN * 2) {
                next = Some(hex(sa.local_spi));
                break;
            }
        }
        Ok(SaPage { ike_sas, next })
    }

    /// One IKE SA.
    pub(super) fn one_sa(&mut self, local_spi: &str) -> Result<IkeSaInfo, Refusal> {
        let spi = cookie(local_spi)?;
        let Some((owner, sa)) = self.node.shown_sa(clock::now(), spi) else {
            return Err(Refusal::new(
                RefusalKind::NotFound,
                format!("no IKE SA with our SPI {local_spi} is established"),
            ));
        };
        Ok(self.counted(owner, &sa))
    }

    /// With the counters of its own CHILD_SAs only: a dump of all costs what all cost.
    pub(super) fn counted(&mut self, owner: Option<MemberId>, sa: &SaStatus) -> IkeSaInfo {
        let ids = sa.children.iter().map(|child| ChildId {
            spi_in: child.spi_in,
            local: sa.local.ip(),
        });
        // One that is being installed or removed has none.
        let counters: BTreeMap<_, _> = ids
            .filter_map(|id| Some((id, self.tunnels.counters(id).ok()?)))
            .collect();
        ike_sa(sa, owner.map_or(0, MemberId::get), clock::now(), &counters)
    }

    pub(super) fn interfaces(&self) -> Interfaces {
        let snapshot = self.membership.snapshot();
        let interfaces = self.steering.interfaces();
        let interfaces = interfaces.iter().map(|interface| SteeredInterface {
            up: link_of(&snapshot, &interface.name).map(|(_, up)| up),
            heard_seconds: link_of(&snapshot, &interface.name)
                .and_then(|(number, _)| last_heard(&snapshot, number))
                .map(|age| age.as_secs_f64()),
            name: interface.name.clone(),
            role: interface.role.as_str().into(),
            mode: interface.mode.as_str().into(),
            fence: interface.fence.map(|hook| match hook {
                FenceHook::Tcx => "tcx".into(),
                FenceHook::Clsact => "clsact".into(),
            }),
        });
        Interfaces {
            vips: self
                .config
                .cluster
                .vips
                .iter()
                .map(ToString::to_string)
                .collect(),
            interfaces: interfaces.collect(),
        }
    }
}

/// Number of the cluster interface with this name, and whether it works.
fn link_of(snapshot: &Snapshot, name: &str) -> Option<(usize, bool)> {
    let links = &snapshot.links;
    let number = links.iter().position(|(known, _)| known == name)?;
    Some((number, links[number].1))
}

/// How long ago any member was heard on a cluster interface.
fn last_heard(snapshot: &Snapshot, number: usize) -> Option<Duration> {
    let links = snapshot.status.members.iter().flat_map(|m| &m.links);
    let heard = links.filter(|(link, _)| usize::from(link.0) == number);
    heard.map(|(_, age)| *age).min()
}

/// What can be said without opening the record.
fn may_match(query: &SaQuery, owner: Option<MemberId>, connection: &str) -> bool {
    let owner = owner.map_or(0, MemberId::get);
    query
        .connection
        .as_ref()
        .is_none_or(|name| name == connection)
        && query.owner.is_none_or(|wanted| wanted == owner)
}

/// What the record says.
fn matches(query: &SaQuery, sa: &SaStatus) -> bool {
    query.remote.is_none_or(|address| address == sa.remote.ip())
        && query
            .remote_id
            .as_ref()
            .is_none_or(|id| *id == sa.remote_id)
}

/// Entries of a page.
pub(super) fn limit(wanted: Option<u16>) -> Result<u16, Refusal> {
    match wanted.unwrap_or(PAGE) {
        limit @ 1..=PAGE => Ok(limit),
        other => Err(invalid(format!("limit {other} is not from 1 to {PAGE}"))),
    }
}

/// 16 hexadecimal digits.
pub(super) fn cookie(text: &str) -> Result<[u8; 8], Refusal> {
    let digits = text.len() == 16 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    u64::from_str_radix(text, 16)
        .ok()
        .filter(|_| digits)
        .map(u64::to_be_bytes)
        .ok_or_else(|| invalid(format!("{text:?} is no cookie: 16 hexadecimal digits")))
}

pub(super) fn hex(cookie: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(cookie))
}

pub(super) fn invalid(reason: String) -> Refusal {
    Refusal::new(RefusalKind::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_sixteen_digits() {
        assert_eq!(
            cookie("00000000000000Ff").unwrap(),
            [0, 0, 0, 0, 0, 0, 0, 255]
        );
        for wrong in [
            "",
            "ff",
            "+000000000000001",
            "000000000000000g",
            "00000000000000000",
        ] {
            assert!(cookie(wrong).is_err(), "{wrong}");
        }
        assert_eq!(hex(*b"cookie!!"), "636f6f6b69652121");
    }
}
