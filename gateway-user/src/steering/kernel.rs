//! What is attached, and keeping it so.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aya::Ebpf;
use gateway_common::abi::{OWN_MACS, Settings, program};

use super::bpf_tables::BpfTables;
use super::bystanders::Bystanders;
use super::capabilities;
use super::config::{AttachMode, Role, SteeringConfig};
use super::error::SteeringError;
use super::fence::{self, Fence};
use super::hooks::{Hooks, netlink_error};
use super::links::{self, XdpLink, XdpMode};
use super::loader;
use super::pins::Pins;
use super::report::{Finding, InterfaceReport};
use super::tables::Tables;
use crate::rtnl::{self, Link, Socket};

/// One interface and what runs on it.
#[derive(Debug)]
struct Attached {
    name: String,
    role: Role,
    index: u32,
    xdp: Option<XdpLink>,
    fence: Fence,
}

/// Everything that lives in the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    hooks: Hooks,
    tables: Arc<BpfTables>,
    attached: Vec<Attached>,
    bystanders: Bystanders,
}

/// The interfaces that the configuration names, as the kernel has them.
pub(super) fn resolve(
    socket: &mut Socket,
    config: &SteeringConfig,
) -> Result<Vec<(Link, Role)>, SteeringError> {
    let mut resolved: Vec<(Link, Role)> = Vec::new();
    for (name, role) in config.roles() {
        let link = find(socket, name)?.ok_or_else(|| SteeringError::NoInterface {
            name: name.to_owned(),
            role: role.as_str(),
        })?;
        let twice = resolved.iter().find(|(other, _)| other.index == link.index);
        if let Some((_, first)) = twice {
            return Err(SteeringError::TwoRoles {
                name: name.to_owned(),
                first: first.as_str(),
                second: role.as_str(),
            });
        }
        resolved.push((link, role));
    }
    Ok(resolved)
}

fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, SteeringError> {
    rtnl::link_by_name(socket, name).map_err(|error| netlink_error(name, error))
}

impl Kernel {
    /// Loads the object onto the pins. Attaches nothing yet.
    pub(super) fn load(
        object: &'static [u8],
        config: &SteeringConfig,
        socket: Socket,
    ) -> Result<Self, SteeringError> {
        let missing = capabilities::held()
            .map(|held| capabilities::missing(held, &capabilities::BPF))
            .unwrap_or_default();
        if !missing.is_empty() {
            return Err(SteeringError::Permission {
                operation: format!("use BPF ({} missing)", missing.join(", ")),
            });
        }
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(SteeringError::NoBtf);
        }
        let pins = Pins::open(config)?;
        pins.adopt_other_layouts()?;
        let mut ebpf = loader::load(object, &pins, config.max_entries)?;
        let tables = Arc::new(BpfTables::take(&mut ebpf)?);
        Ok(Self {
            hooks: Hooks {
                object,
                config: config.clone(),
                ebpf,
                pins,
                socket,
            },
            tables,
            attached: Vec::new(),
            bystanders: Bystanders::default(),
        })
    }

    /// The tables.
    pub(super) fn tables(&self) -> Arc<BpfTables> {
        Arc::clone(&self.tables)
    }

    /// The socket, in the namespace of the thread that started.
    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.hooks.socket
    }

    /// Attaches to `interfaces`, fences all others, and detaches from those of an earlier
    /// configuration. If nothing ran before and one of `interfaces` fails, nothing runs afterwards.
    pub(super) fn attach(&mut self, interfaces: &[(Link, Role)]) -> Result<(), SteeringError> {
        let configured: Vec<u32> = interfaces.iter().map(|(link, _)| link.index).collect();
        let links = self.hooks.pins.links();
        let takeover = fs::read_dir(links).is_ok_and(|mut pins| pins.next().is_some());
        let result = self.attach_all(interfaces);
        if result.is_err() && !takeover {
            self.attached.clear();
            self.bystanders.clear();
            if let Err(error) = detach_all(&mut self.hooks.socket, &self.hooks.pins) {
                tracing::error!(%error, "could not undo a start that failed");
            }
        }
        result?;
        let fenced: Vec<u32> = self
            .bystanders
            .indices()
            .chain(configured.clone())
            .collect();
        for index in links::remove_unwanted(self.hooks.pins.links(), &configured, &fenced)? {
            tracing::info!(
                index,
                "detached from an interface that is no longer configured"
            );
        }
        fence::remove_unwanted(&mut self.hooks.socket, &fenced)?;
        self.hooks.pins.remove_other_layouts();
        Ok(())
    }

    /// Tells the programs which Ethernet addresses are this member's: those of its public and
    /// inside interfaces and of the virtual (VRRP) interfaces on top of them.
    fn write_own_macs(&mut self) -> Result<(), SteeringError> {
        let links = self.hooks.links()?;
        let ours: Vec<u32> = self
            .attached
            .iter()
            .filter(|attached| attached.role != Role::Sync)
            .map(|attached| attached.index)
            .collect();
        let is_ours = |link: &&Link| {
            let virtual_one = link.kind.as_deref() == Some("macvlan")
                && link.parent.is_some_and(|parent| ours.contains(&parent));
            ours.contains(&link.index) || virtual_one
        };
        let mut macs: Vec<[u8; 6]> = links
            .iter()
            .filter(is_ours)
            .filter_map(|link| link.mac)
            .collect();
        macs.sort_unstable();
        macs.dedup();
        let settings = self.tables.settings()?;
        let wanted = pack_macs(&macs);
        if settings.macs != wanted {
            self.tables.set_settings(Settings {
                macs: wanted,
                ..settings
            })?;
        }
        Ok(())
    }

    /// The fences of the other interfaces first: steered packets are answered by whatever way the
    /// routes say. One that cannot be fenced does not stop the start; [`Kernel::verify`] tells.
    fn attach_all(&mut self, interfaces: &[(Link, Role)]) -> Result<(), SteeringError> {
        let configured: Vec<u32> = interfaces.iter().map(|(link, _)| link.index).collect();
        let present = self.hooks.links()?;
        self.bystanders
            .keep(&mut self.hooks, &present, &configured)?;
        for (link, role) in interfaces {
            let attached = self.attach_one(link, *role)?;
            self.attached.push(attached);
        }
        self.write_own_macs()
    }

    /// The fence first: from the moment packets are steered here, nothing may leave unfenced.
    fn attach_one(&mut self, link: &Link, role: Role) -> Result<Attached, SteeringError> {
        let fence = self.hooks.install_fence(link)?;
        if role == Role::Sync {
            self.tables.set_sync_device(link.index)?;
        }
        let Hooks {
            ebpf,
            pins,
            socket,
            config,
            ..
        } = &mut self.hooks;
        let xdp = match xdp_program(role, ebpf)? {
            Some(program) => {
                let fd = loader::program_fd(program)?;
                Some(links::attach(
                    socket,
                    pins.links(),
                    link,
                    fd,
                    config.attach,
                )?)
            }
            None => None,
        };
        Ok(Attached {
            name: link.name.clone(),
            role,
            index: link.index,
            xdp,
            fence,
        })
    }

    /// What runs where.
    pub(super) fn report(&self) -> Vec<InterfaceReport> {
        self.attached
            .iter()
            .map(|attached| InterfaceReport {
                name: attached.name.clone(),
                role: attached.role,
                mode: attached
                    .xdp
                    .as_ref()
                    .map_or(XdpMode::None, |link| link.mode),
                fence: Some(attached.fence.hook()),
            })
            .collect()
    }

    /// The sync interface's index and name.
    pub(super) fn sync(&self) -> Option<(u32, &str)> {
        self.attached
            .iter()
            .find(|attached| attached.role == Role::Sync)
            .map(|attached| (attached.index, attached.name.as_str()))
    }

    /// Looks at every interface and puts back what is gone.
    pub(super) fn verify(&mut self) -> Result<Vec<Finding>, SteeringError> {
        let mut findings = Vec::new();
        self.write_own_macs()?;
        for position in 0..self.attached.len() {
            findings.extend(self.verify_one(position)?);
        }
        let configured: Vec<u32> = self.attached.iter().map(|one| one.index).collect();
        let present = self.hooks.links()?;
        let kept = self.bystanders.keep(&mut self.hooks, &present, &configured);
        findings.extend(kept?);
        Ok(findings)
    }

    fn verify_one(&mut self, position: usize) -> Result<Option<Finding>, SteeringError> {
        let Some(attached) = self.attached.get(position) else {
            return Ok(None);
        };
        let (name, role) = (attached.name.clone(), attached.role);
        let finding =
            |what: String, repaired| Some(Finding::new(&name, Some(role), what, repaired));
        let Some(link) = find(&mut self.hooks.socket, &name)? else {
            return Ok(finding("the interface is gone".to_owned(), Ok(())).map(Finding::open));
        };
        if link.index != attached.index || xdp_is_gone(attached, &link) {
            let repaired = self.attach_one(&link, role).map(|new| {
                self.attached[position] = new;
            });
            return Ok(finding("its XDP program was detached".to_owned(), repaired));
        }
        if role == Role::Sync && self.tables.sync_device() != Some(link.index) {
            let repaired = self.tables.set_sync_device(link.index);
            return Ok(finding(
                "the sync device was missing".to_owned(),
                repaired.map_err(Into::into),
            ));
        }
        let Some(breach) = self.hooks.check_fence(&attached.fence, &link)? else {
            return Ok(None);
        };
        let repaired = self.hooks.repair_fence(&attached.fence, &link, &breach);
        let repaired = repaired.map(|new| self.attached[position].fence = new);
        Ok(finding(breach.to_string(), repaired))
    }
}

/// Detaches everything that the pins and the fence's filters show.
fn detach_all(socket: &mut Socket, pins: &Pins) -> Result<(), SteeringError> {
    links::remove_unwanted(pins.links(), &[], &[])?;
    fence::remove_unwanted(socket, &[])
}

/// The addresses as `Settings::macs` holds them. More than fit: none, so that every unicast
/// address counts as ours and steering goes on.
fn pack_macs(macs: &[[u8; 6]]) -> [[u8; 8]; OWN_MACS] {
    let mut packed = [[0; 8]; OWN_MACS];
    if macs.len() > OWN_MACS {
        return packed;
    }
    for (entry, mac) in packed.iter_mut().zip(macs) {
        entry[..6].copy_from_slice(mac);
    }
    packed
}

fn xdp_program(role: Role, ebpf: &Ebpf) -> Result<Option<&aya::programs::Program>, SteeringError> {
    match role {
        Role::Public => loader::program(ebpf, program::INGRESS).map(Some),
        Role::Sync => loader::program(ebpf, program::SYNC).map(Some),
        Role::Inside => Ok(ebpf.program(program::INSIDE)),
    }
}

/// The link sits nowhere any more, or something else runs on the interface.
fn xdp_is_gone(attached: &Attached, link: &Link) -> bool {
    attached.xdp.as_ref().is_some_and(|xdp| {
        xdp.info().map_or(true, |info| {
            info.interface != link.index
                || link.xdp.map(|xdp| xdp.program_id) != Some(info.program_id)
        })
    })
}

/// Detaches everything and removes the pins.
pub(super) fn uninstall(config: &SteeringConfig) -> Result<(), SteeringError> {
    let root = config.pin_root();
    if !root.exists() {
        return Ok(());
    }
    let mut socket = Socket::open().map_err(|source| SteeringError::Netlink {
        operation: "open an rtnetlink socket".to_owned(),
        source,
    })?;
    let pins = Pins::open(config)?;
    detach_all(&mut socket, &pins)?;
    pins.remove_all()
}

/// `attach = "none"` on a host that once ran with BPF: nothing may go on steering behind an agent
/// that does not maintain it.
pub(super) fn uninstall_leftovers(config: &SteeringConfig) -> Result<(), SteeringError> {
    debug_assert_eq!(config.attach, AttachMode::None);
    if has_pins(&config.pin_root()) {
        tracing::warn!("steering.attach is \"none\": detaching what an earlier start attached");
        return uninstall(config);
    }
    Ok(())
}

fn has_pins(root: &Path) -> bool {
    fs::read_dir(root.join("links")).is_ok_and(|mut pins| pins.next().is_some())
}
