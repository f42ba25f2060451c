//! The object in the kernel, its maps filled from the host model, its programs run by
//! `BPF_PROG_TEST_RUN`.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, DevMap, HashMap, LpmTrie, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use gateway_common::abi::{
    Counter, FewVips, MemberValue, RemoteNet, Settings, SlotValue, map, program, size,
};
use gateway_common::model::ModelTables;
use gateway_common::reason::{Action, Program, Reason};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;

/// The loopback device: a redirect under test run sends nothing.
const LOOPBACK: u32 = 1;

/// Programs and maps, private to a test: nothing is pinned or attached.
pub(crate) struct Kernel {
    bpf: Ebpf,
}

/// What a program did with a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) action: Action,
    pub(crate) frame: Vec<u8>,
}

/// What the kernel tells the fence about a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skb {
    pub(crate) mark: u32,
    /// `gso_segs`.
    pub(crate) segments: u32,
    /// `gso_size`.
    pub(crate) size: u32,
}

impl Skb {
    /// The head of the kernel's `struct __sk_buff`.
    fn context(self) -> [u8; 184] {
        let mut context = [0; 184];
        for (offset, field) in [(8, self.mark), (164, self.segments), (176, self.size)] {
            context[offset..offset + 4].copy_from_slice(&field.to_ne_bytes());
        }
        context
    }
}

/// Whether the caller may load programs; says so if not.
pub(crate) fn is_root(test: &str) -> bool {
    // SAFETY: no arguments, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED {test}: loading eBPF programs needs root");
    }
    root
}

impl Kernel {
    /// Loads the shipped object and fills its maps.
    pub(crate) fn load(tables: &ModelTables) -> Self {
        Self::with(EbpfLoader::new(), tables)
    }

    /// The same with what the loader changes for kernels before 5.18, but for the section name.
    pub(crate) fn load_as_on_old_kernels(tables: &ModelTables) -> Self {
        let mut loader = EbpfLoader::new();
        loader.override_global("MULTI_BUFFER", &0u8, true);
        Self::with(loader, tables)
    }

    fn with(mut loader: EbpfLoader<'_>, tables: &ModelTables) -> Self {
        let object = gateway_user::steering::OBJECT;
        let mut bpf = loader.load(object).expect("the object loads");
        for name in [program::INGRESS, program::SYNC, program::INSIDE] {
            let program = bpf.program_mut(name).expect(name);
            let program: &mut Xdp = program.try_into().expect(name);
            program.load().expect(name);
        }
        let fence = bpf.program_mut(program::EGRESS).expect("the fence");
        let fence: &mut SchedClassifier = fence.try_into().expect("a classifier");
        fence.load().expect("the fence loads");
        let mut kernel = Self { bpf };
        kernel.fill(tables);
        kernel
    }

    fn fill(&mut self, tables: &ModelTables) {
        self.insert(map::NEGOTIATIONS, tables.negotiations.iter());
        self.insert(map::IKE_SA, tables.ike_sa.iter());
        self.insert(map::ESP_SA, tables.esp_sa.iter());
        self.insert(map::ESP_OUT, tables.esp_out.iter());
        self.insert(map::VIP, tables.vip.iter().map(|vip| (vip, &1u32)));
        self.set(
            map::SLOT_OWNER,
            tables.slot_owner.iter().map(|(s, m)| (u32::from(*s), *m)),
        );
        self.set(
            map::MEMBER,
            tables.member.iter().map(|(id, value)| (*id, *value)),
        );
        self.lease(tables.lease);
        self.set(map::LIVE, (0u32..).zip(tables.live.iter().copied()));
        let mut nets: LpmTrie<&mut MapData, RemoteNet, SlotValue> = self.take(map::REMOTE_NET);
        for (length, net, value) in &tables.remote_net {
            nets.insert(&Key::new(*length, *net), value, 0)
                .expect("REMOTE_NET");
        }
        let mut devices: DevMap<&mut MapData> = self.take(map::SYNC_DEV);
        devices.set(0, LOOPBACK, None, 0).expect("SYNC_DEV");
        let vips: Vec<_> = tables.vip.iter().copied().collect();
        self.set(map::VIP_FEW, [(0, FewVips::new(&vips))].into_iter());
        self.settings(tables.settings);
    }

    /// Makes the programs ask `VIP`, as they must with many VIPs.
    pub(crate) fn forget_few_vips(&mut self) {
        self.set(map::VIP_FEW, [(0, FewVips::default())].into_iter());
    }

    fn take<'a, M>(&'a mut self, name: &str) -> M
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        self.bpf.map_mut(name).expect(name).try_into().expect(name)
    }

    fn insert<'a, K, V>(&mut self, name: &str, entries: impl Iterator<Item = (&'a K, &'a V)>)
    where
        K: Pod + 'a,
        V: Pod + 'a,
    {
        let mut map: HashMap<&mut MapData, K, V> = self.take(name);
        for (key, value) in entries {
            map.insert(key, value, 0).expect(name);
        }
    }

    fn set<V: Pod>(&mut self, name: &str, entries: impl Iterator<Item = (u32, V)>) {
        let mut map: Array<&mut MapData, V> = self.take(name);
        for (index, value) in entries {
            map.set(index, value, 0).expect(name);
        }
    }

    pub(crate) fn settings(&mut self, settings: Settings) {
        self.set(map::SETTINGS, [(0, settings)].into_iter());
    }

    /// Writes `LEASE`.
    pub(crate) fn lease(&mut self, until: u64) {
        self.set(map::LEASE, [(0, until)].into_iter());
    }

    /// Runs a program once on a frame of 14 octets or more.
    pub(crate) fn run(&self, program: Program, frame: &[u8], skb: Skb) -> Outcome {
        let mut output = vec![0; frame.len() + 64];
        let context = skb.context();
        let is_tc = program == Program::Egress;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ctx_in: is_tc.then_some(context.as_slice()),
            ..TestRunOptions::default()
        };
        let loaded = self.bpf.program(program.as_str()).expect("loaded");
        let result = if is_tc {
            let loaded: &SchedClassifier = loaded.try_into().expect("a classifier");
            loaded.test_run(options)
        } else {
            let loaded: &Xdp = loaded.try_into().expect("XDP");
            loaded.test_run(options)
        };
        let result = result.unwrap_or_else(|error| panic!("{program:?} on {frame:02x?}: {error}"));
        output.truncate(usize::try_from(result.data_size_out).expect("small"));
        let action = match (is_tc, result.return_value) {
            (false, XDP_PASS) | (true, TC_ACT_UNSPEC) => Action::Pass,
            (false, XDP_DROP) | (true, TC_ACT_SHOT) => Action::Drop,
            (false, XDP_REDIRECT) => Action::Forward,
            (_, verdict) => panic!("{program:?} returned {verdict} for {frame:02x?}"),
        };
        Outcome {
            action,
            frame: output,
        }
    }

    /// Instructions that the verifier went through for `program`; `None` on kernels that do not
    /// tell.
    pub(crate) fn verified(&self, program: Program) -> Option<u32> {
        let loaded = self.bpf.program(program.as_str()).expect("loaded");
        let info = match loaded {
            aya::programs::Program::Xdp(loaded) => loaded.info(),
            aya::programs::Program::SchedClassifier(loaded) => loaded.info(),
            _ => panic!("{program:?} is neither XDP nor a classifier"),
        };
        info.expect("program info").verified_instruction_count()
    }

    /// The counters that are not zero, by index of `STATS` or `PEER_STATS`.
    pub(crate) fn counters(&self, name: &str) -> BTreeMap<u32, (u64, u64)> {
        let stats = self.bpf.map(name).expect(name);
        let stats: PerCpuArray<&MapData, Counter> = stats.try_into().expect(name);
        let sum = |index: u32| {
            let values = stats.get(&index, 0).expect(name);
            values.iter().fold((0, 0), |(packets, bytes), counter| {
                (packets + counter.packets, bytes + counter.bytes)
            })
        };
        (0..stats.len())
            .map(|index| (index, sum(index)))
            .filter(|(_, counter)| *counter != (0, 0))
            .collect()
    }

    /// Sets all counters back to zero.
    pub(crate) fn reset_counters(&mut self) {
        for name in [map::STATS, map::PEER_STATS] {
            let mut stats: PerCpuArray<&mut MapData, Counter> = self.take(name);
            let cpus = aya::util::nr_cpus().expect("CPUs");
            for index in 0..stats.len() {
                let zero = vec![Counter::default(); cpus]
                    .try_into()
                    .expect("one per CPU");
                stats.set(index, zero, 0).expect(name);
            }
        }
    }

    /// Asserts that the maps hold what [`Kernel::load`] wrote and nothing else.
    pub(crate) fn assert_unchanged(&self, tables: &ModelTables) {
        self.assert_hash(map::NEGOTIATIONS, &tables.negotiations);
        self.assert_hash(map::IKE_SA, &tables.ike_sa);
        self.assert_hash(map::ESP_SA, &tables.esp_sa);
        self.assert_hash(map::ESP_OUT, &tables.esp_out);
        let vips = tables.vip.iter().map(|vip| (*vip, 1u32)).collect();
        self.assert_hash(map::VIP, &vips);
        let nets = self.bpf.map(map::REMOTE_NET).expect("REMOTE_NET");
        let nets: LpmTrie<&MapData, RemoteNet, SlotValue> = nets.try_into().expect("REMOTE_NET");
        let mut found: Vec<_> = nets
            .iter()
            .map(|entry| entry.expect("REMOTE_NET"))
            .map(|(key, value)| (key.prefix_len(), key.data(), value))
            .collect();
        let mut expected = tables.remote_net.clone();
        let order = |(length, net, _): &(u32, RemoteNet, SlotValue)| (*length, net.address);
        found.sort_by_key(order);
        expected.sort_by_key(order);
        assert_eq!(found, expected);
        self.assert_array(map::LEASE, 1, |_| tables.lease);
        self.assert_array(map::SETTINGS, 1, |_| tables.settings);
        let slots = u32::try_from(gateway_common::slot::Slot::COUNT).expect("256");
        self.assert_array(map::SLOT_OWNER, slots, |slot| {
            let slot = u8::try_from(slot).expect("a slot");
            tables.slot_owner.get(&slot).copied().unwrap_or(0)
        });
        self.assert_array(map::MEMBER, size::MEMBERS, |id| {
            tables
                .member
                .get(&id)
                .copied()
                .unwrap_or(MemberValue::default())
        });
        self.assert_array(map::LIVE, size::MEMBERS, |index| {
            let index = usize::try_from(index).expect("small");
            tables.live.get(index).copied().unwrap_or(0)
        });
    }

    fn assert_hash<K, V>(&self, name: &str, expected: &std::collections::HashMap<K, V>)
    where
        K: Pod + Eq + std::hash::Hash + std::fmt::Debug,
        V: Pod + PartialEq + std::fmt::Debug,
    {
        let map = self.bpf.map(name).expect(name);
        let map: HashMap<&MapData, K, V> = map.try_into().expect(name);
        let found: std::collections::HashMap<K, V> =
            map.iter().map(|entry| entry.expect(name)).collect();
        assert_eq!(&found, expected, "{name}");
    }

    fn assert_array<V>(&self, name: &str, length: u32, expected: impl Fn(u32) -> V)
    where
        V: Pod + PartialEq + std::fmt::Debug,
    {
        let map = self.bpf.map(name).expect(name);
        let map: Array<&MapData, V> = map.try_into().expect(name);
        assert_eq!(map.len(), length, "{name}");
        for index in 0..length {
            assert_eq!(
                map.get(&index, 0).expect(name),
                expected(index),
                "{name}[{index}]"
            );
        }
    }
}

/// `STATS` after frames that ended in `reasons`, each with its length.
pub(crate) fn expected_stats<'a>(
    frames: impl Iterator<Item = (Reason, &'a [u8])>,
) -> BTreeMap<u32, (u64, u64)> {
    let mut stats = BTreeMap::new();
    for (reason, frame) in frames {
        let counter = stats.entry(reason.index()).or_insert((0, 0));
        counter.0 += 1;
        counter.1 += frame.len() as u64;
    }
    stats
}
