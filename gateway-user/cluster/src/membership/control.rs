//! Operators' commands, and the end.

use gateway_common::{member::MemberId, time::Instant};

use super::Membership;
use super::io::{Command, Event, Output};
use super::wire::{Message, Preference};
use crate::slot_map::Mode;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) drained: bool,
    /// Load sharing: who has this member's share meanwhile.
    pub(super) heir: Option<MemberId>,
    /// HA: who shall be active.
    pub(super) preference: Preference,
    pub(super) stopping: bool,
    /// The handover is not waited for any longer.
    pub(super) stop_by: Option<Instant>,
    pub(super) stopped: bool,
    /// When to look for the lost half of a view again.
    pub(super) probe_at: Option<Instant>,
}

impl Membership {
    pub(super) fn command(&mut self, command: Command) {
        let refused = match command {
            Command::Drain => {
                self.control.drained = true;
                None
            }
            Command::Undrain => {
                self.control.drained = false;
                self.control.heir = None;
                None
            }
            Command::Failover { to } => self.fail_over(to).err(),
            Command::Bootstrap if self.lease.running => Some("this member serves already"),
            Command::Bootstrap if self.control.stopping => Some("this member leaves"),
            Command::Bootstrap => {
                self.bootstrap();
                None
            }
            Command::Configured { hash } => {
                self.config.config_hash = hash;
                None
            }
            Command::Stop => {
                self.control.stopping = true;
                let patience = self.config.timing.silence * 4;
                self.control.stop_by.get_or_insert(self.now + patience);
                None
            }
        };
        if let Some(reason) = refused {
            let event = Event::Refused { command, reason };
            self.outputs.push_back(Output::Event(event));
        }
    }

    fn fail_over(&mut self, to: MemberId) -> Result<(), &'static str> {
        if !self.is_in_view(to) {
            return Err("the target is not in the view");
        }
        match self.config.mode {
            Mode::HighAvailability => {
                let stamp = self.control.preference.stamp.max(self.view.epoch.0) + 1;
                let to = Some(to);
                self.control.preference = Preference { stamp, to };
            }
            Mode::LoadSharing if to == self.config.local => {
                return Err("the target is this member");
            }
            Mode::LoadSharing => {
                self.control.drained = true;
                self.control.heir = Some(to);
            }
        }
        Ok(())
    }

    /// A failover command has had its effect, or cannot have it, when its target is not in the view
    /// any more: the priorities count again.
    pub(super) fn forget_preference(&mut self) {
        let Preference { stamp, to } = self.control.preference;
        if let Some(to) = to
            && self.admitted
            && stamp <= self.view.epoch.0
            && !self.is_in_view(to)
        {
            self.control.preference = Preference {
                stamp: stamp.max(self.view.epoch.0) + 1,
                to: None,
            };
        }
    }

    /// Leaves once the others have taken over, or cannot.
    pub(super) fn step_stop(&mut self) {
        if !self.control.stopping {
            return;
        }
        let patience = self.control.stop_by.is_some_and(|by| self.now < by);
        let others = !self.voters_alive().is_empty();
        if self.admitted && others && patience {
            return;
        }
        self.lease.until = Instant::default();
        self.lease.running = false;
        self.serving.fill(false);
        self.admitted = false;
        self.outputs.push_back(Output::Lease(Instant::default()));
        self.refresh_slots();
        self.refresh_addresses();
        // Twice: nobody acknowledges it.
        for _ in 0..2 {
            let everybody = self.everybody();
            self.send_all(everybody, Message::Goodbye);
        }
        self.control.stopped = true;
        self.outputs.push_back(Output::Stopped);
    }
}
