//! The data path's control side: loads the eBPF object, pins maps and links, attaches the XDP
//! programs and the egress fence, and writes the ownership tables that they read.
//!
//! Pins live under `<bpffs>/gateway/v<ABI>/{maps,links}` and outlive the process: after SIGKILL
//! steering and fence go on with the last tables, and the next [`Steering::start`] takes maps and
//! links over without a gap. Only [`uninstall`] detaches.
//!
//! Interface indices resolve in the calling thread's network namespace, as everywhere in BPF:
//! call from a thread that is in the gateway's namespace.

mod array_table;
mod batch;
mod bpf_tables;
mod bystanders;
mod capabilities;
mod config;
mod error;
mod fence;
mod guard;
mod handle;
mod hash_table;
mod hooks;
mod kernel;
mod links;
mod loader;
mod members;
mod memory;
mod object;
mod pins;
mod preflight;
mod report;
mod sys;
mod tables;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::abi::Settings;
use gateway_common::member::MemberId;
use gateway_common::time::Instant;

use self::kernel::Kernel;
use self::members::Members;
use crate::rtnl::{self, Socket};

pub use config::{AttachMode, MemberLink, Role, SteeringConfig};
pub use error::SteeringError;
pub use fence::FenceHook;
pub use guard::SteeringGuard;
pub use handle::FenceHandle;
pub use links::XdpMode;
pub use memory::MemoryTables;
#[doc(hidden)]
pub use object::BENCH_OBJECT;
pub use object::OBJECT;
pub use preflight::{Check, Severity, preflight};
pub use report::{Finding, InterfaceReport};
pub use tables::{Counters, Dump, Fill, TableError, Tables};

/// The running data path. Dropping it leaves everything attached.
#[derive(Debug)]
pub struct Steering {
    tables: Arc<dyn Tables>,
    kernel: Option<Arc<Mutex<Kernel>>>,
    members: Arc<Mutex<Members>>,
    without_kernel: Vec<InterfaceReport>,
}

impl Steering {
    /// Loads the shipped object, takes over or makes the pins, writes the settings, the VIPs and
    /// the members, and attaches to all configured interfaces. With `attach = "none"` it only
    /// makes tables in memory.
    ///
    /// After a restart the tables hold what the earlier agent wrote, but for the lease: nothing
    /// leaves in the cluster's name before [`Tables::set_lease`].
    ///
    /// # Errors
    /// [`SteeringError`]; each names its fix. A start that fails leaves a data path that ran
    /// before running, and attaches nothing where none ran.
    pub fn start(config: &SteeringConfig) -> Result<Self, SteeringError> {
        Self::start_object(config, OBJECT)
    }

    /// [`Self::start`] with another object of the same layout.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_object(
        config: &SteeringConfig,
        object: &'static [u8],
    ) -> Result<Self, SteeringError> {
        if config.attach == AttachMode::None {
            kernel::uninstall_leftovers(config)?;
            return Self::without_kernel(config);
        }
        let mut socket = Socket::open().map_err(|source| netlink("open a socket", source))?;
        let interfaces = kernel::resolve(&mut socket, config)?;
        let mut kernel = Kernel::load(object, config, socket)?;
        let tables: Arc<dyn Tables> = kernel.tables();
        let members = prepare(config, tables.as_ref())?;
        kernel.attach(&interfaces)?;
        Ok(Self {
            tables,
            kernel: Some(Arc::new(Mutex::new(kernel))),
            members: Arc::new(Mutex::new(members)),
            without_kernel: Vec::new(),
        })
    }

    fn without_kernel(config: &SteeringConfig) -> Result<Self, SteeringError> {
        let tables: Arc<dyn Tables> = Arc::new(MemoryTables::new(config.max_entries));
        let members = prepare(config, tables.as_ref())?;
        let without_kernel = config
            .roles()
            .map(|(name, role)| InterfaceReport {
                name: name.to_owned(),
                role,
                mode: XdpMode::None,
                fence: None,
            })
            .collect();
        Ok(Self {
            tables,
            kernel: None,
            members: Arc::new(Mutex::new(members)),
            without_kernel,
        })
    }

    /// The ownership tables.
    pub fn tables(&self) -> Arc<dyn Tables> {
        Arc::clone(&self.tables)
    }

    /// The fence, for the thread that keeps the lease.
    pub fn fence_handle(&self) -> FenceHandle {
        FenceHandle {
            tables: Arc::clone(&self.tables),
            members: Arc::clone(&self.members),
        }
    }

    /// How each interface is steered, in the order public, sync, inside.
    pub fn interfaces(&self) -> Vec<InterfaceReport> {
        match &self.kernel {
            Some(kernel) => lock(kernel).report(),
            None => self.without_kernel.clone(),
        }
    }

    /// The weakest mode of the interfaces that run an XDP program.
    pub fn mode(&self) -> XdpMode {
        let interfaces = self.interfaces();
        let has = |mode| interfaces.iter().any(|interface| interface.mode == mode);
        if has(XdpMode::Generic) {
            XdpMode::Generic
        } else if has(XdpMode::Native) {
            XdpMode::Native
        } else {
            XdpMode::None
        }
    }

    /// `ike_forwarding.enabled`, effective with the next packet.
    ///
    /// # Errors
    /// [`TableError::Kernel`].
    pub fn set_enabled(&self, enabled: bool) -> Result<(), TableError> {
        // Under the members' lock: a read and a write of the settings are two steps.
        let _one_writer = lock(&self.members);
        let settings = self.tables.settings()?;
        self.tables.set_settings(Settings {
            enabled: u32::from(enabled),
            ..settings
        })
    }

    /// [`FenceHandle::set_live`].
    ///
    /// # Errors
    /// [`TableError`].
    pub fn set_live(&self, live: &[MemberId]) -> Result<(), TableError> {
        self.fence_handle().set_live(live)
    }

    /// Brings the other members' sync MACs up to date from the kernel's neighbour table, and has
    /// the kernel ask for those that are missing. Call once a second, and when a member joins;
    /// takes a fraction of a millisecond and does not wait for answers.
    /// Answers the members whose MAC has never been known: nothing is forwarded to them.
    ///
    /// # Errors
    /// [`SteeringError::Netlink`], [`SteeringError::Table`].
    pub fn refresh_members(&self) -> Result<Vec<MemberId>, SteeringError> {
        let Some(kernel) = &self.kernel else {
            return Ok(Vec::new());
        };
        let mut kernel = lock(kernel);
        let Some((index, name)) = kernel.sync().map(|(index, name)| (index, name.to_owned()))
        else {
            return Ok(Vec::new());
        };
        let neighbours = rtnl::neighbours(kernel.socket(), index)
            .map_err(|error| netlink("read the neighbour table", error.into()))?;
        drop(kernel);
        let mut members = lock(&self.members);
        let missing = members.learn(&neighbours, self.tables.as_ref())?;
        let unresolved = missing
            .iter()
            .map(|link| link.id)
            .filter(|id| !members.is_resolved(*id))
            .collect();
        // Before sockets are opened: the thread that keeps the lease may want the members.
        drop(members);
        for link in &missing {
            members::solicit(link.sync_address, &name, index);
        }
        Ok(unresolved)
    }

    /// What keeps programs and fences in place, for a thread of its own.
    ///
    /// # Errors
    /// [`SteeringError::Netlink`].
    pub fn guard(&self) -> Result<SteeringGuard, SteeringError> {
        SteeringGuard::new(self.kernel.clone())
    }

    /// Looks whether programs and fences are still attached and first in line, and puts them back
    /// where they are not: `tc qdisc del … clsact` or a re-created interface removes them without
    /// a word. Fences interfaces that have appeared. [`SteeringGuard::watch`] calls it when
    /// something changes; without a guard, call it once a second. What it answers belongs in the
    /// log, and what could not be repaired is a reason not to be active ([`Finding::problem`]).
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn verify(&self) -> Result<Vec<Finding>, SteeringError> {
        match &self.kernel {
            Some(kernel) => lock(kernel).verify(),
            None => Ok(Vec::new()),
        }
    }
}

/// Detaches everything that a gateway with this configuration attached and removes its pins.
/// Nothing to remove is no error.
///
/// # Errors
/// [`SteeringError::InUse`] while an agent runs; [`SteeringError::Pin`], [`SteeringError::Netlink`].
pub fn uninstall(config: &SteeringConfig) -> Result<(), SteeringError> {
    kernel::uninstall(config)
}

/// Writes what the configuration says, before anything runs that reads it.
fn prepare(config: &SteeringConfig, tables: &dyn Tables) -> Result<Members, SteeringError> {
    // A new process has no right to transmit until it is granted one.
    tables.set_lease(Instant::default())?;
    tables.set_vips(&config.vips)?;
    let members = Members::adopt(config, tables)?;
    let before = tables.settings()?;
    tables.set_settings(Settings {
        member: u32::from(config.local.get()),
        enabled: u32::from(config.enabled),
        cluster: u32::from(config.cluster),
        ..before
    })?;
    Ok(members)
}

fn netlink(operation: &str, source: io::Error) -> SteeringError {
    SteeringError::Netlink {
        operation: operation.to_owned(),
        source,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) fn test_config() -> SteeringConfig {
    let member = |id: u8| MemberLink {
        id: MemberId::new(id).unwrap(),
        sync_address: std::net::IpAddr::from([10, 99, 0, id]),
    };
    SteeringConfig {
        cluster: 7,
        local: MemberId::new(1).unwrap(),
        members: (1..=3).map(member).collect(),
        vips: vec![[203, 0, 113, 10].into()],
        public: vec!["eth0".to_owned()],
        inside: vec!["eth2".to_owned()],
        sync: "eth1".to_owned(),
        attach: AttachMode::None,
        bpffs: "/nonexistent".into(),
        max_entries: 1024,
        enabled: true,
        fence: None,
        local_networks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_may_share_it() {
        fn shared<T: Send + Sync>() {}
        shared::<Steering>();
        shared::<FenceHandle>();
    }

    #[test]
    fn without_a_kernel_the_tables_still_work() {
        let steering = Steering::start(&test_config()).unwrap();
        assert_eq!(steering.mode(), XdpMode::None);
        assert_eq!(steering.interfaces().len(), 3);
        let settings = steering.tables().settings().unwrap();
        assert_eq!((settings.member, settings.enabled), (1, 1));
        steering.set_enabled(false).unwrap();
        let live: Vec<_> = [3, 1].into_iter().filter_map(MemberId::new).collect();
        steering.set_live(&live).unwrap();
        let settings = steering.tables().settings().unwrap();
        assert_eq!((settings.enabled, settings.live_members), (0, 2));
        assert!(steering.refresh_members().unwrap().is_empty());
        assert!(steering.verify().unwrap().is_empty());
    }
}
