//! The fence stays where it is, in front.

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use gateway_user::steering::{FenceHook, Steering, uninstall};

use crate::lab::{Lab, index, run, try_run, with_lab};

/// A foreign program: a copy of ours under a path of its own.
pub(crate) fn foreign_program(lab: &Lab) -> String {
    let file = lab.folder().join("object.o");
    std::fs::write(&file, gateway_user::steering::OBJECT).unwrap();
    let pin = lab.other_bpffs().join("programs");
    run(&format!(
        "bpftool prog loadall {} {}",
        file.display(),
        pin.display()
    ));
    pin.join("gateway_egress").display().to_string()
}

/// Attaches a foreign program to `pub0`.
fn foreign_tcx(order: LinkOrder) -> aya::Ebpf {
    let mut object = aya::Ebpf::load(gateway_user::steering::OBJECT).unwrap();
    let program: &mut SchedClassifier = object
        .program_mut("gateway_egress")
        .unwrap()
        .try_into()
        .unwrap();
    program.load().unwrap();
    program
        .attach_with_options(
            "pub0",
            TcAttachType::Egress,
            TcAttachOptions::TcxOrder(order),
        )
        .unwrap();
    object
}

fn egress(interface: &str) -> String {
    run(&format!("tc filter show dev {interface} egress"))
}

#[test]
fn a_tcx_program_in_front_is_overtaken() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        assert!(
            steering
                .interfaces()
                .iter()
                .all(|one| one.fence == Some(FenceHook::Tcx))
        );
        let _behind = foreign_tcx(LinkOrder::last());
        assert!(
            steering.verify().unwrap().is_empty(),
            "behind ours it does no harm"
        );
        let _before = foreign_tcx(LinkOrder::first());
        let findings = steering.verify().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].repaired, "{findings:?}");
        assert!(findings[0].what.contains("runs before"), "{findings:?}");
        assert!(steering.verify().unwrap().is_empty());
        let (_, programs) = SchedClassifier::query_tcx("pub0", TcAttachType::Egress).unwrap();
        assert_eq!(programs.len(), 3, "both strangers, and ours once");
        drop(steering);
        let steering = Steering::start(&lab.config()).unwrap();
        assert!(
            steering.verify().unwrap().is_empty(),
            "the new link is pinned"
        );
    });
}

#[test]
fn links_that_somebody_detaches_are_made_anew() {
    with_lab(|lab| {
        let steering = Steering::start(&lab.config()).unwrap();
        for kind in ["tcx", "xdp"] {
            let pin = lab.pins("links").join(format!("{kind}_{}", index("pub0")));
            run(&format!("bpftool link detach pinned {}", pin.display()));
            let findings = steering.verify().unwrap();
            assert_eq!(findings.len(), 1, "{kind}: {findings:?}");
            assert!(findings[0].repaired, "{kind}: {findings:?}");
            assert!(steering.verify().unwrap().is_empty(), "{kind}");
        }
        assert!(run("ip link show pub0").contains("xdp"));
        let (_, programs) = SchedClassifier::query_tcx("pub0", TcAttachType::Egress).unwrap();
        assert_eq!(programs.len(), 1);
    });
}

#[test]
fn the_clsact_fence_is_put_back_when_the_qdisc_goes() {
    with_lab(|lab| {
        let mut config = lab.config();
        config.fence = Some(FenceHook::Clsact);
        let steering = Steering::start(&config).unwrap();
        let filter = egress("pub0");
        assert!(
            filter.contains("pref 1 bpf chain 0 handle 0x1 gateway_egress"),
            "{filter}"
        );
        assert!(filter.contains("direct-action"), "{filter}");
        assert!(steering.verify().unwrap().is_empty());

        run("tc qdisc del dev pub0 clsact");
        let findings = steering.verify().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].repaired && findings[0].interface == "pub0");
        assert!(egress("pub0").contains("gateway_egress"));
        assert!(steering.verify().unwrap().is_empty());
        drop(steering);
        assert!(
            egress("pub0").contains("gateway_egress"),
            "outlives the agent"
        );

        let steering = Steering::start(&config).unwrap();
        assert_eq!(egress("pub0").matches("handle 0x1").count(), 1);
        assert!(steering.verify().unwrap().is_empty());
        drop(steering);
        config.fence = Some(FenceHook::Tcx);
        drop(Steering::start(&config).unwrap());
        uninstall(&config).unwrap();
        assert!(!egress("pub0").contains("gateway_egress"));
    });
}

#[test]
fn a_filter_that_would_run_first_is_reported() {
    with_lab(|lab| {
        let mut config = lab.config();
        config.fence = Some(FenceHook::Clsact);
        let steering = Steering::start(&config).unwrap();
        let foreign = foreign_program(lab);
        run(&format!(
            "tc filter add dev pub0 egress pref 2 bpf da object-pinned {foreign}"
        ));
        assert!(
            steering.verify().unwrap().is_empty(),
            "behind ours it does no harm"
        );
        run(&format!(
            "tc filter add dev pub0 egress pref 1 handle 7 bpf da object-pinned {foreign}"
        ));
        let findings = steering.verify().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(!findings[0].repaired);
        assert!(findings[0].what.contains("runs before"), "{findings:?}");
        run("tc filter del dev pub0 egress pref 1 handle 7 bpf");
        assert!(steering.verify().unwrap().is_empty());
    });
}

#[test]
fn another_classifier_at_the_lowest_preference_is_refused() {
    with_lab(|lab| {
        run("tc qdisc add dev pub0 clsact");
        let (ok, reason) = try_run("tc filter add dev pub0 egress pref 1 matchall action ok");
        if !ok {
            eprintln!("skipped: this kernel has no matchall classifier: {reason}");
            return;
        }
        let mut config = lab.config();
        config.fence = Some(FenceHook::Clsact);
        let error = Steering::start(&config).unwrap_err().to_string();
        assert!(
            error.contains("pub0") && error.contains("preference"),
            "{error}"
        );
    });
}
