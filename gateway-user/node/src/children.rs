//! Which CHILD_SAs stand in this member's kernel, and for which IKE SAs.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use gateway_ike::output::{ChildId, ChildSa};

/// A CHILD_SA as it stands in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Installed {
    id: ChildId,
    /// Tells whether what the kernel has to know of it has changed.
    fingerprint: u64,
}

/// The CHILD_SAs of all IKE SAs of the cluster, by our IKE SPI, without their keys.
///
/// When an IKE SA is rekeyed, its successor claims the children before the old one lets go of them
/// (RFC 7296 §2.18): a child is gone when nobody claims it any more.
#[derive(Debug, Default)]
pub(crate) struct Children {
    by_sa: BTreeMap<[u8; 8], Vec<Installed>>,
    /// How many claim it, and who did last.
    claims: BTreeMap<ChildId, (u32, [u8; 8])>,
}

/// What a new state of an IKE SA means for the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// New or changed: indices into the list of children that was given.
    pub(crate) put: Vec<usize>,
    /// Claimed by no IKE SA any more.
    pub(crate) gone: Vec<ChildId>,
}

impl Children {
    /// The IKE SA `local_spi` has these children now.
    pub(crate) fn set(&mut self, local_spi: [u8; 8], children: &[&ChildSa]) -> Difference {
        let now: Vec<Installed> = children.iter().map(|child| installed(child)).collect();
        let mut difference = Difference::default();
        let before = self.by_sa.remove(&local_spi).unwrap_or_default();
        for (index, child) in now.iter().enumerate() {
            let (claims, last) = self.claims.entry(child.id).or_default();
            *last = local_spi;
            let known = before.contains(child);
            // A child that a predecessor claims stands there already.
            if !known && (*claims == 0 || before.iter().any(|b| b.id == child.id)) {
                difference.put.push(index);
            }
            *claims += 1;
        }
        self.release(&before, &mut difference.gone);
        if !now.is_empty() {
            self.by_sa.insert(local_spi, now);
        }
        difference
    }

    /// The IKE SA `local_spi` is gone: answers the children that nobody claims any more.
    pub(crate) fn remove(&mut self, local_spi: [u8; 8]) -> Vec<ChildId> {
        let mut gone = Vec::new();
        let before = self.by_sa.remove(&local_spi).unwrap_or_default();
        self.release(&before, &mut gone);
        gone
    }

    /// The IKE SA that a CHILD_SA belongs to.
    pub(crate) fn owner(&self, child: &ChildId) -> Option<[u8; 8]> {
        self.claims.get(child).map(|(_, owner)| *owner)
    }

    fn release(&mut self, children: &[Installed], gone: &mut Vec<ChildId>) {
        for child in children {
            match self.claims.get_mut(&child.id) {
                Some((claims, _)) if *claims > 1 => *claims -= 1,
                Some(_) => {
                    self.claims.remove(&child.id);
                    gone.push(child.id);
                }
                None => {}
            }
        }
    }
}

/// Keys never change under one SPI, so they need not be looked at.
fn installed(child: &ChildSa) -> Installed {
    let mut hasher = DefaultHasher::new();
    (child.slot, child.remote, child.encap, child.spi_out).hash(&mut hasher);
    (child.if_id_in, child.if_id_out, child.marks).hash(&mut hasher);
    (&child.local_ts, &child.remote_ts).hash(&mut hasher);
    Installed {
        id: child.id(),
        fingerprint: hasher.finish(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use gateway_common::slot::Slot;
    use gateway_ike::crypto::Encryption;
    use gateway_ike::secret::SecretBytes;

    use super::*;

    fn child(spi: u8) -> ChildSa {
        ChildSa {
            name: "net".into(),
            connection: "site".into(),
            slot: Slot(1),
            spi_in: [0, 0, 1, spi],
            spi_out: [0, 0, 2, spi],
            local: Ipv4Addr::LOCALHOST.into(),
            remote: Ipv4Addr::LOCALHOST.into(),
            encap: None,
            encryption: Encryption::AesGcm16Key128,
            key_in: SecretBytes::from(&[1; 20][..]),
            key_out: SecretBytes::from(&[2; 20][..]),
            esn: true,
            replay_window: 32,
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            if_id_in: 0,
            if_id_out: 0,
            marks: gateway_ike::mark::Marks::default(),
            hard_lifetime_seconds: 60,
            quota: gateway_ike::output::Quota::default(),
        }
    }

    #[test]
    fn a_child_that_a_successor_claims_outlives_the_rekeyed_ike_sa() {
        let mut children = Children::default();
        let only = child(1);
        assert_eq!(children.set([1; 8], &[&only]).put, [0]);
        assert_eq!(children.set([2; 8], &[&only]), Difference::default());
        assert!(children.remove([1; 8]).is_empty());
        assert_eq!(children.remove([2; 8]), [only.id()]);
        assert!(children.remove([2; 8]).is_empty());
    }

    #[test]
    fn only_what_changed_is_written_again() {
        let mut children = Children::default();
        let (first, second) = (child(1), child(2));
        assert_eq!(children.set([1; 8], &[&first, &second]).put, [0, 1]);
        assert_eq!(
            children.set([1; 8], &[&first, &second]),
            Difference::default()
        );
        let mut moved = first.clone();
        moved.encap = Some((4500, 1024));
        let difference = children.set([1; 8], &[&moved]);
        assert_eq!(difference.put, [0]);
        assert_eq!(difference.gone, [second.id()]);
    }
}
