//! Every reason not to start is named, with its fix, and leaves nothing behind.

use std::fs;

use gateway_user::steering::{AttachMode, Steering, SteeringError, XdpMode, uninstall};

use crate::lab::{run, with_lab};

#[test]
fn interfaces_are_reported_with_role_and_mode() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        let report = serde_json::to_value(steering.interfaces()).unwrap();
        assert_eq!(
            report,
            serde_json::json!([
                {"name": "pub0", "role": "public", "mode": "native"},
                {"name": "sync0", "role": "sync", "mode": "native"},
                {"name": "in0", "role": "inside", "mode": "native"},
            ])
        );
        assert!(run("ip -d link show pub0").contains("prog/xdp id "));
        drop(steering);

        let mut generic = lab.config();
        generic.attach = AttachMode::Generic;
        let steering = Steering::start(&generic).unwrap();
        assert_eq!(steering.mode(), XdpMode::Generic);
        assert!(run("ip link show pub0").contains("xdpgeneric"));
    });
}

#[test]
fn a_driver_without_native_xdp_gets_the_generic_hook_or_an_error() {
    with_lab(|lab| {
        run("ip link add br0 type bridge");
        run("ip link set br0 up");
        let mut config = lab.config();
        config.public = vec!["br0".to_owned()];
        config.attach = AttachMode::Native;
        let error = Steering::start(&config).unwrap_err();
        let SteeringError::Attach {
            interface, mode, ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((interface.as_str(), *mode), ("br0", "native"));
        assert!(error.to_string().contains("steering.attach"), "{error}");

        config.attach = AttachMode::Auto;
        let steering = Steering::start(&config).unwrap();
        let modes: Vec<XdpMode> = steering.interfaces().iter().map(|one| one.mode).collect();
        assert_eq!(modes, [XdpMode::Generic, XdpMode::Native, XdpMode::Native]);
        assert_eq!(steering.mode(), XdpMode::Generic);
    });
}

#[test]
fn another_xdp_program_is_named_and_left_alone() {
    with_lab(|lab| {
        let mut stranger = lab.config();
        stranger.bpffs = lab.other_bpffs();
        let running = Steering::start(&stranger).unwrap();
        let program = run("ip -d link show pub0");

        let error = Steering::start(&lab.config()).unwrap_err();
        let SteeringError::OtherProgram {
            interface,
            program_id,
            program: name,
            fix,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(interface, "pub0");
        assert!(fix.contains("bpftool link detach id "), "{fix}");
        assert!(
            program.contains(&format!("prog/xdp id {program_id} ")),
            "{program}"
        );
        assert_eq!(
            name, "gateway_ingress",
            "cut to fifteen characters by the kernel"
        );
        assert_eq!(run("ip -d link show pub0"), program, "still runs");
        let left = fs::read_dir(lab.pins("links")).unwrap().count();
        assert_eq!(left, 0, "a start that fails attaches nothing");
        drop(running);
    });
}

#[test]
fn missing_interfaces_and_file_systems_are_named_with_the_fix() {
    with_lab(|lab| {
        let mut config = lab.config();
        config.sync = "sync9".to_owned();
        let error = Steering::start(&config).unwrap_err().to_string();
        assert!(error.contains("sync9 (sync) does not exist"), "{error}");

        let mut config = lab.config();
        config.inside = vec!["pub0".to_owned()];
        let error = Steering::start(&config).unwrap_err().to_string();
        assert!(
            error.contains("pub0 is configured as public and as inside"),
            "{error}"
        );

        let mut config = lab.config();
        config.bpffs = "/tmp".into();
        let error = Steering::start(&config).unwrap_err().to_string();
        assert!(error.contains("fix: mount -t bpf bpf /tmp"), "{error}");
    });
}

#[test]
fn a_second_agent_is_refused_while_the_first_runs() {
    with_lab(|lab| {
        let first = Steering::start(&lab.config()).unwrap();
        let error = Steering::start(&lab.config()).unwrap_err();
        assert!(matches!(error, SteeringError::InUse { .. }), "{error}");
        let error = uninstall(&lab.config()).unwrap_err();
        assert!(matches!(error, SteeringError::InUse { .. }), "{error}");
        drop(first);
        Steering::start(&lab.config()).unwrap();
    });
}

#[test]
fn without_the_right_to_use_bpf_the_error_says_so() {
    with_lab(|lab| {
        // The raw system call changes this thread only, unlike the C library's wrapper; without
        // an effective user id of 0 the effective capabilities go.
        // SAFETY: setresuid takes no pointers.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 0) };
        assert_eq!(result, 0);
        let error = Steering::start(&lab.config()).unwrap_err();
        // SAFETY: as above; back to root for the clean-up.
        unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) };
        let SteeringError::Permission { operation } = &error else {
            panic!("{error}");
        };
        assert!(operation.contains("CAP_BPF"), "{error}");
        assert!(error.to_string().contains("AmbientCapabilities"), "{error}");
    });
}
