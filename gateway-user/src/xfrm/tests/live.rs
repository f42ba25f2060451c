//! Against the running kernel, in network namespaces of their own. Policies need nothing but
//! CONFIG_XFRM_USER; where SAs cannot be installed, the error is what is tested.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use super::{child, contents, ip, network, recorded, sa};
use crate::xfrm::socket::set_option;
use crate::xfrm::{
    Action, Direction, Policy, PolicyKey, PolicySelector, PortMatch, Recording, Request, SaKernel,
    Template, Tunnels, Xfrm, bypass,
};

/// Runs `test` in a fresh network namespace, on a thread of its own. Not at all without the
/// privilege to make one.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: no pointers; only this thread moves.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            eprintln!("skipped: making a network namespace needs root");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn policy(direction: Direction, src: &str, dst: &str, action: Action) -> Policy {
    let selector = PolicySelector::between(src.parse().unwrap(), dst.parse().unwrap());
    Policy {
        key: PolicyKey {
            direction,
            selector,
            if_id: 0,
            mark: gateway_ike::mark::Mark::NONE,
        },
        priority: selector.priority(),
        action,
        icmp: false,
    }
}

fn tunnel(src: &str, dst: &str, reqid: u32) -> Action {
    Action::Protect(Template {
        src: ip(src),
        dst: ip(dst),
        reqid,
    })
}

fn samples() -> Vec<Policy> {
    let mut tcp = policy(
        Direction::Out,
        "10.1.0.0/16",
        "10.2.0.0/16",
        tunnel("192.0.2.1", "192.0.2.2", 0x4700_0001),
    );
    tcp.key.selector.protocol = 6;
    tcp.key.selector.src_port = PortMatch {
        value: 443,
        mask: 0xffff,
    };
    tcp.key.selector.dst_port = PortMatch {
        value: 1024,
        mask: 0xfc00,
    };
    tcp.icmp = true;
    let mut v6 = policy(
        Direction::Fwd,
        "2001:db8:1::/48",
        "2001:db8:2::/64",
        tunnel("2001:db8::1", "2001:db8::2", 0x4700_0002),
    );
    v6.key.if_id = 9;
    let six_in_four = policy(
        Direction::In,
        "2001:db8:1::/48",
        "::/0",
        tunnel("192.0.2.2", "192.0.2.1", 0x4700_0003),
    );
    vec![
        tcp,
        v6,
        six_in_four,
        policy(Direction::Out, "0.0.0.0/0", "10.2.0.0/16", Action::Block),
        policy(Direction::In, "10.1.0.0/16", "0.0.0.0/0", Action::Bypass),
    ]
}

#[test]
fn policies_come_back_as_they_went_in_and_ip_agrees() {
    in_namespace(|| {
        let mut kernel = Xfrm::open().unwrap();
        let mut samples = samples();
        for policy in &samples {
            kernel.install_policy(policy).unwrap();
        }
        samples.sort_by_key(|p| p.key);
        assert_eq!(contents(&mut kernel).1, samples);
        let text = run("ip xfrm policy");
        for line in [
            "src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp sport 443 dport 1024",
            "dir out priority 383616 ptype main flag icmp",
            "tmpl src 192.0.2.1 dst 192.0.2.2",
            "proto esp reqid 1191182337 mode tunnel",
            "if_id 0x9",
            "dir out action block priority 391808",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        for policy in &samples {
            kernel.delete_policy(&policy.key).unwrap();
        }
        assert_eq!(run("ip xfrm policy"), "");
    });
}

#[test]
fn the_recording_kernel_answers_policies_as_the_real_one() {
    in_namespace(|| {
        let mut real = Xfrm::open().unwrap();
        let mut recording = Recording::new();
        let samples = samples();
        let mut changed = samples[0];
        changed.priority += 1;
        changed.action = tunnel("192.0.2.1", "192.0.2.3", 0x4700_0009);
        let mut higher = samples[3];
        higher.priority = 7;
        let script = [
            Request::DeletePolicy(&samples[0].key),
            Request::NewPolicy(&samples[0]),
            Request::NewPolicy(&samples[0]),
            Request::UpdatePolicy(&changed),
            Request::NewPolicy(&samples[3]),
            // The same selector with another priority is the same policy.
            Request::NewPolicy(&higher),
            Request::UpdatePolicy(&higher),
            Request::UpdatePolicy(&samples[1]),
            Request::DeletePolicy(&samples[1].key),
            Request::DeletePolicy(&samples[1].key),
            Request::NewPolicy(&samples[2]),
        ];
        let errnos = |kernel: &mut dyn SaKernel| -> Vec<Option<i32>> {
            let results = kernel.apply(&script);
            let errno = |r: Result<(), crate::xfrm::XfrmError>| r.err().and_then(|e| e.errno());
            results.into_iter().map(errno).collect()
        };
        let expected = errnos(&mut recording);
        assert_eq!(errnos(&mut real), expected);
        assert_eq!(expected.iter().flatten().count(), 4);
        assert_eq!(contents(&mut real), contents(&mut recording));
        // SAs, as far as a kernel without ESP goes.
        for kernel in [&mut real as &mut dyn SaKernel, &mut recording] {
            assert!(kernel.delete_sa(&sa(1).id).unwrap_err().is_missing());
            assert!(kernel.query_sa(&sa(1).id).unwrap_err().is_missing());
            assert!(kernel.dump_sas().unwrap().is_empty());
        }
    });
}

#[test]
fn a_child_is_installed_or_the_error_says_how_to_get_esp() {
    in_namespace(|| {
        let mut tunnels = Tunnels::new(Box::new(Xfrm::open().unwrap()));
        tunnels.protect(&[network("10.2.0.0/16")], &[]).unwrap();
        let blocked = contents(tunnels.kernel());
        match tunnels.install_child(&child(1), None) {
            Ok(()) => {
                let (_, mut expected) = recorded();
                expected.protect(&[network("10.2.0.0/16")], &[]).unwrap();
                expected.install_child(&child(1), None).unwrap();
                assert_eq!(contents(tunnels.kernel()), contents(expected.kernel()));
                tunnels.remove_child(child(1).id()).unwrap();
            }
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("modprobe") && text.contains("not found"),
                    "{text}"
                );
                assert!(!text.contains("1111"), "no key: {text}");
            }
        }
        assert_eq!(contents(tunnels.kernel()), blocked);
    });
}

#[test]
fn a_batch_survives_an_overrun_of_the_receive_buffer() {
    in_namespace(|| {
        let mut kernel = Xfrm::open().unwrap();
        // The kernel raises this to its minimum: two or three acknowledgements.
        set_option(kernel.descriptor(), libc::SOL_SOCKET, libc::SO_RCVBUF, 1).unwrap();
        let policies: Vec<Policy> = (0..200)
            .map(|n| {
                policy(
                    Direction::Out,
                    "0.0.0.0/0",
                    &format!("10.2.{n}.0/24"),
                    Action::Block,
                )
            })
            .collect();
        let requests: Vec<Request<'_>> = policies.iter().map(Request::NewPolicy).collect();
        let results = kernel.apply(&requests);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(kernel.overruns() > 0, "the test did not overrun anything");
        assert_eq!(kernel.dump_policies().unwrap().len(), 200);
        let keys: Vec<Request<'_>> = policies
            .iter()
            .map(|p| Request::DeletePolicy(&p.key))
            .collect();
        assert!(kernel.apply(&keys).iter().all(Result::is_ok));
        assert!(kernel.dump_policies().unwrap().is_empty());
    });
}

#[test]
fn a_block_stops_everybody_but_exempt_sockets() {
    in_namespace(|| {
        run("ip link set lo up");
        // lo is exempt by default.
        for switch in ["disable_xfrm", "disable_policy"] {
            for scope in ["lo", "all"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/{switch}"), "0").unwrap();
            }
        }
        let mut tunnels = Tunnels::new(Box::new(Xfrm::open().unwrap()));
        tunnels.protect(&[network("127.0.0.0/8")], &[]).unwrap();

        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (plain, ike, receiver) = (socket(), socket(), socket());
        let to = receiver.local_addr().unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        bypass::exempt_from_policies(&ike, ip("127.0.0.1")).unwrap();
        let refused = plain.send_to(b"cleartext", to).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));

        let mut buffer = [0; 16];
        ike.send_to(b"ike", to).unwrap();
        assert!(
            receiver.recv(&mut buffer).is_err(),
            "the receiver is not exempt"
        );
        bypass::exempt_from_policies(&receiver, ip("127.0.0.1")).unwrap();
        ike.send_to(b"ike", to).unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 3);
        let wrong_family = bypass::exempt_from_policies(&ike, ip("::1"));
        assert!(wrong_family.is_err());
        let v6 = UdpSocket::bind("[::1]:0").unwrap();
        bypass::exempt_from_policies(&v6, ip("::1")).unwrap();
    });
}
