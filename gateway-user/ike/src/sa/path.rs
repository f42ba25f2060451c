//! Where the peer is, when a NAT between us may change its mind (RFC 7296 §2.23).

use super::IkeSa;
use crate::endpoint::core::Core;
use crate::output::{KernelRequest, Path};

impl IkeSa {
    /// RFC 7296 §2.23: a host that is not behind a NAT follows the address and port of a new,
    /// authentic packet; one that is does not, because anybody could then move it.
    pub(super) fn move_to(&mut self, core: &mut Core, path: Path) {
        let established = self.established().is_some();
        // RFC 4555 §3.8: with MOBIKE "the host not behind a NAT MUST NOT use these dynamic updates
        // for IKEv2 packets".
        if self.transport.mobike && established {
            return self.heard_from(path);
        }
        if self.nat.local && established {
            return;
        }
        if self.path != path {
            self.path = path;
            self.move_children(core, path);
        }
    }

    /// ESP in UDP goes where IKE goes.
    fn move_children(&mut self, core: &mut Core, path: Path) {
        let Some(established) = self.established_mut() else {
            return;
        };
        established.dirty = true;
        let ports = (path.local.port(), path.remote.port());
        for child in &mut established.children {
            let sa = &mut child.sa;
            let moved = sa.encap != Some(ports) || sa.remote != path.remote.ip();
            // Its SA is found by our address, and port 500 carries no ESP.
            let can_move = sa.encap.is_some()
                && sa.local == path.local.ip()
                && ports.0 != crate::wire::PORT_IKE;
            if moved && can_move {
                sa.encap = Some(ports);
                sa.remote = path.remote.ip();
                core.out.kernel(KernelRequest::Update {
                    child: Box::new(sa.clone()),
                });
            }
        }
    }
}
