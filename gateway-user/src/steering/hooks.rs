//! The fence of one interface: installed, checked, put back.

use std::os::fd::AsFd;

use aya::Ebpf;
use gateway_common::abi::program;

use super::config::SteeringConfig;
use super::error::SteeringError;
use super::fence::{self, Breach, Fence};
use super::links;
use super::loader;
use super::pins::Pins;
use crate::rtnl::{self, Link, NetlinkError, Socket};

/// The loaded programs and what it takes to attach them.
#[derive(Debug)]
pub(super) struct Hooks {
    pub(super) object: &'static [u8],
    pub(super) config: SteeringConfig,
    pub(super) ebpf: Ebpf,
    pub(super) pins: Pins,
    pub(super) socket: Socket,
}

/// The error of a request about `interface`.
pub(super) fn netlink_error(interface: &str, error: NetlinkError) -> SteeringError {
    SteeringError::Netlink {
        operation: format!("read interface {interface}"),
        source: error.into(),
    }
}

impl Hooks {
    /// All interfaces of this network namespace.
    pub(super) fn links(&mut self) -> Result<Vec<Link>, SteeringError> {
        rtnl::links(&mut self.socket).map_err(|error| netlink_error("list", error))
    }

    /// Whether the interface is still there.
    pub(super) fn exists(&mut self, link: &Link) -> bool {
        !matches!(rtnl::link_by_index(&mut self.socket, link.index), Ok(None))
    }

    /// Installs the fence, or swaps the program of the one that is there.
    pub(super) fn install_fence(&mut self, link: &Link) -> Result<Fence, SteeringError> {
        let program = loader::program(&self.ebpf, program::EGRESS)?;
        let id = loader::program_id(program)?;
        fence::install(
            &mut self.socket,
            self.pins.links(),
            link,
            loader::program_fd(program)?.as_fd(),
            id,
            self.config.fence,
        )
    }

    /// What is wrong with the fence.
    pub(super) fn check_fence(
        &mut self,
        fence: &Fence,
        link: &Link,
    ) -> Result<Option<Breach>, SteeringError> {
        fence
            .check(&mut self.socket, link)
            .map_err(|source| SteeringError::Netlink {
                operation: format!("check the egress fence of {}", link.name),
                source,
            })
    }

    /// Puts the fence back in front; answers the new one.
    pub(super) fn repair_fence(
        &mut self,
        fence: &Fence,
        link: &Link,
        breach: &Breach,
    ) -> Result<Fence, SteeringError> {
        let tcx = matches!(fence, Fence::Tcx(_));
        match breach {
            Breach::NotFirst(other) if !tcx => {
                // Preference 1 is the lowest there is; only its holder can make room.
                Err(SteeringError::Fence {
                    interface: link.name.clone(),
                    reason: format!("{other} runs before it"),
                    fix: "remove it, or give it a preference above 1".to_owned(),
                })
            }
            Breach::NotFirst(_) => {
                // One program can stand on a hook only once, and links keep their place: a second
                // copy goes to the front, then the old link goes.
                let copy = loader::load(self.object, &self.pins, self.config.max_entries)?;
                let program = loader::program(&copy, program::EGRESS)?;
                fence::renew_tcx(self.pins.links(), link, loader::program_fd(program)?)
            }
            Breach::Missing => {
                links::release(&links::tcx_pin(self.pins.links(), link.index))?;
                self.install_fence(link)
            }
        }
    }
}
