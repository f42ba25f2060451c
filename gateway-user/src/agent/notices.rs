//! What the membership decided, and what it is told about this member.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_cluster::membership::{Event, MemberState, Pnote, PnoteState};
use gateway_common::member::MemberId;
use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use super::journal::Circumstances;
use super::membership::Notice;
use super::{Agent, log};

/// For what the others still have to be told, half-open negotiations among it, to leave the sync
/// channel. This member owns nothing any more.
const LAST_WORDS: Duration = Duration::from_millis(100);

impl Agent {
    pub(super) fn take_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::View {
                view,
                unsafe_takeover,
            } => {
                if unsafe_takeover {
                    tracing::warn!(
                        "a view without a majority: another member may still be serving; sequence \
                         numbers jump, and CHILD_SAs that it takes over are rekeyed"
                    );
                }
                let circumstances = Circumstances {
                    unsafe_takeover,
                    drained: self.drained(),
                };
                let before = self.node.view();
                self.journal.view(now, before, &view, &circumstances);
                if unsafe_takeover {
                    self.node.handle_half_view(now, *view);
                } else {
                    self.node.handle_view(now, *view);
                }
                self.forget_lost();
            }
            Notice::Gaining(number) => self.membership.gain(number),
            Notice::Active(epoch) => {
                self.node.handle_active(now, epoch);
                self.journal.served(now, epoch.0);
                self.drop_inherited(self.config.cluster.local);
                self.finish_adoption();
                if self.has_gained() {
                    self.tunnels.begin_survey();
                }
            }
            Notice::Event(event) => {
                log::membership(&event);
                let silent = self.silence_of(&event);
                self.journal.membership(now, &event, silent);
            }
            Notice::Stopped => self.stop_at = Some(now + LAST_WORDS),
        }
        self.tell_health();
    }

    /// Members that an operator drained, or that stop.
    fn drained(&self) -> BTreeSet<MemberId> {
        let members = self.membership.snapshot().status.members;
        let drained = members.iter().filter(|member| member.drained);
        drained.map(|member| member.member).collect()
    }

    /// How long the member whose state changed has not been heard on any interface.
    fn silence_of(&self, event: &Event) -> Option<Duration> {
        let Event::State { member, .. } = event else {
            return None;
        };
        let members = self.membership.snapshot().status.members;
        let about = members.iter().find(|known| known.member == *member)?;
        about.links.iter().map(|(_, age)| *age).min()
    }

    /// Everything that still stands is known by now: this member is in a view.
    fn finish_adoption(&mut self) {
        if std::mem::take(&mut self.adopting) {
            self.tunnels.finish_adoption();
        }
    }

    /// Slots that went and come back are gained again.
    fn forget_lost(&mut self) {
        let (local, view) = (self.config.cluster.local, self.node.view());
        self.active_slots
            .retain(|slot| view.slots.owner(*slot) == Some(local));
    }

    /// Whether there are slots that were not this member's when it was last asked. Most views give a
    /// member nothing, and asking where all SAs stand is not for nothing.
    fn has_gained(&mut self) -> bool {
        let local = self.config.cluster.local;
        let view = self.node.view();
        let slots = view.slots.iter();
        let own: BTreeSet<Slot> = slots
            .filter(|(_, owner)| *owner == Some(local))
            .map(|(slot, _)| slot)
            .collect();
        let gained = !own.is_subset(&self.active_slots);
        self.active_slots = own;
        gained
    }

    /// This member's state as the membership sees it.
    pub(super) fn own_state(&self) -> (MemberState, String) {
        let status = self.membership.snapshot().status;
        let local = self.config.cluster.local;
        let own = status.members.iter().find(|m| m.member == local);
        own.map_or((MemberState::Init, MemberState::Init.to_string()), |own| {
            (own.shown.state, own.shown.to_string())
        })
    }

    /// Files and routes that routing daemons look at.
    pub(super) fn tell_health(&mut self) {
        let (state, shown) = self.own_state();
        if let Err(error) = self.health.tell(&shown, takes_traffic(state)) {
            tracing::debug!("health: {error}");
        }
    }

    /// Four times in the time after which this loop counts as dead.
    pub(super) fn show_life(&mut self) {
        let watchdog = self.config.cluster.watchdog;
        self.device("engine", PnoteState::Ok, String::new(), Some(watchdog));
        self.manager.tell("WATCHDOG=1");
        self.choose_ways();
        self.tell_health();
    }

    /// Members that are heard, but not over the sync network, are reached over another one.
    fn choose_ways(&self) {
        let silence = self.config.cluster.timing.silence;
        for member in self.membership.snapshot().status.members {
            let heard = |sync: bool| {
                let mut links = member.links.iter();
                links.any(|(link, age)| (link.0 == 0) == sync && *age < silence)
            };
            if heard(true) {
                self.transport.set_detour(member.member, false);
            } else if heard(false) {
                self.transport.set_detour(member.member, true);
            }
        }
    }

    /// The devices that this loop watches, as they are at the start.
    pub(super) fn report_devices(&mut self) {
        self.show_life();
        for name in ["xfrm", "steering", "configuration"] {
            self.device(name, PnoteState::Ok, String::new(), None);
        }
    }

    /// Report of a critical device.
    pub(super) fn device(
        &self,
        name: &str,
        state: PnoteState,
        reason: String,
        timeout: Option<Duration>,
    ) {
        self.membership.pnote(Pnote {
            name: name.into(),
            state,
            reason,
            timeout,
        });
    }
}

/// Whether upstream may send to a member in this state.
pub(super) const fn takes_traffic(state: MemberState) -> bool {
    matches!(state, MemberState::Active | MemberState::ActiveAttention)
}
