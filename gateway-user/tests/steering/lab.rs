//! A private corner of the kernel for one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gateway_common::member::MemberId;
use gateway_user::steering::{AttachMode, MemberLink, SteeringConfig};

/// Interfaces `pub0`, `sync0` and `in0` (each a veth whose other end is `…p`), and a bpffs.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

/// Runs `test` on a thread of its own in fresh namespaces. Without root it does nothing.
pub(crate) fn with_lab(test: impl FnOnce(&Lab) + Send + 'static) {
    // SAFETY: geteuid has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        let lab = Lab::new();
        test(&lab);
        lab.leave();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // SAFETY: unshare takes no pointers and affects this thread only.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        run("mount --make-rprivate /");
        let bpffs = folder.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        run(&format!("mount -t bpf bpf {}", bpffs.display()));
        run("ip link set lo up");
        for name in ["pub0", "sync0", "in0"] {
            run(&format!("ip link add {name} type veth peer name {name}p"));
            run(&format!("ip link set {name} up"));
            run(&format!("ip link set {name}p up"));
            // Without NAPI the far end would not take redirected frames.
            run(&format!("ethtool -K {name}p gro on"));
        }
        run("ip address add 10.99.0.1/24 dev sync0");
        Self { folder }
    }

    fn leave(&self) {
        // Lazily: a child that another test is just starting may hold a descriptor of it.
        run(&format!("umount --lazy {}", self.bpffs().display()));
    }

    /// A folder of this test alone, on an ordinary file system.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.folder.path().join("bpf")
    }

    /// Another folder on the bpffs, as a second host's `steering.bpffs` would be.
    pub(crate) fn other_bpffs(&self) -> PathBuf {
        let other = self.bpffs().join("other");
        fs::create_dir_all(&other).unwrap();
        other
    }

    pub(crate) fn pins(&self, kind: &str) -> PathBuf {
        self.config().pin_root().join(kind)
    }

    pub(crate) fn config(&self) -> SteeringConfig {
        Self::config_on(self.bpffs())
    }

    pub(crate) fn config_on(bpffs: PathBuf) -> SteeringConfig {
        let member = |id: u8| MemberLink {
            id: MemberId::new(id).unwrap(),
            sync_address: [10, 99, 0, id].into(),
        };
        SteeringConfig {
            cluster: 7,
            local: MemberId::new(1).unwrap(),
            members: (1..=3).map(member).collect(),
            vips: vec![[203, 0, 113, 10].into(), "2001:db8:1::10".parse().unwrap()],
            public: vec!["pub0".to_owned()],
            inside: vec!["in0".to_owned()],
            sync: "sync0".to_owned(),
            attach: AttachMode::Auto,
            bpffs,
            max_entries: 1024,
            enabled: true,
            fence: None,
            local_networks: Vec::new(),
        }
    }
}

/// Runs a command line and answers what it printed.
pub(crate) fn run(line: &str) -> String {
    let (ok, output) = try_run(line);
    assert!(ok, "{line}: {output}");
    output
}

/// Runs a command line; whether it succeeded, and what it printed.
pub(crate) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

pub(crate) fn sysctl(name: &str, value: u32) {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
}

pub(crate) fn index(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: the name is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{interface}");
    index
}

/// A second network namespace that lives as long as this value.
pub(crate) struct Neighbourhood(Child);

impl Neighbourhood {
    /// Moves `interface` over and gives it `address`.
    pub(crate) fn with(interface: &str, address: &str) -> Self {
        let before = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let child = Command::new("unshare")
            .args(["-n", "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        let other = Self(child);
        while fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == before {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        run(&format!("ip link set {interface} netns {pid}"));
        other.run(&format!("ip address add {address} dev {interface}"));
        other.run(&format!("ip link set {interface} up"));
        other
    }

    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter -t {} -n {line}", self.0.id()))
    }
}

impl Drop for Neighbourhood {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
