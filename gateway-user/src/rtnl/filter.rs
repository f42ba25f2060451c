//! The clsact egress hook, for kernels without tcx.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{Reply, Request, attribute, text, u32_at};
use super::socket::{NetlinkError, Socket};

const TCMSG: usize = 20;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`.
const EGRESS_PARENT: u32 = 0xffff_fff3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// Smallest preference there is (0 means "choose for me"): nothing can stand before it.
const PREFERENCE: u32 = 1;
const HANDLE: u32 = 1;

/// A filter on an interface's egress hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EgressFilter {
    /// Preference; lower runs first.
    pub(crate) preference: u16,
    /// Its handle within the preference.
    pub(crate) handle: u32,
    /// Classifier, for example `bpf`.
    pub(crate) kind: String,
    /// Name given by who attached it (bpf only).
    pub(crate) name: Option<String>,
    /// The kernel's program id (bpf only).
    pub(crate) program_id: Option<u32>,
}

impl EgressFilter {
    /// Whether this is the place that [`replace_egress`] writes to.
    pub(crate) fn is_ours(&self) -> bool {
        u32::from(self.preference) == PREFERENCE && self.handle == HANDLE && self.kind == "bpf"
    }
}

/// Adds the clsact qdisc unless it is there.
pub(crate) fn ensure_clsact(socket: &mut Socket, index: u32) -> Result<(), NetlinkError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let body = body(index, CLSACT_HANDLE, TC_H_CLSACT, 0);
    let mut request = Request::new(libc::RTM_NEWQDISC, flags as u16, &body);
    request.string(TCA_KIND, "clsact");
    match socket.execute(&mut request) {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Puts `program` in front of every other egress filter, or swaps the program that an earlier
/// call put there, in one step: the old one runs until the new one does.
pub(crate) fn replace_egress(
    socket: &mut Socket,
    index: u32,
    program: BorrowedFd<'_>,
    name: &str,
) -> Result<(), NetlinkError> {
    // CREATE without EXCL: one chain, preference and handle means replace in place. Delete and
    // add would leave a gap in which packets pass.
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let mut request = filter_request(libc::RTM_NEWTFILTER, flags, index);
    request
        .string(TCA_KIND, "bpf")
        .nested(TCA_OPTIONS, |options| {
            options
                .attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
                .string(TCA_BPF_NAME, name)
                .attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
        });
    socket.execute(&mut request)
}

/// Removes what [`replace_egress`] installed; the qdisc stays, others may use it.
pub(crate) fn delete_egress(socket: &mut Socket, index: u32) -> Result<(), NetlinkError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let mut request = filter_request(libc::RTM_DELTFILTER, flags, index);
    request.string(TCA_KIND, "bpf");
    socket.execute(&mut request)
}

/// The filters of the egress hook in the order in which they run; empty without clsact.
pub(crate) fn egress_filters(
    socket: &mut Socket,
    index: u32,
) -> Result<Vec<EgressFilter>, NetlinkError> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    let body = body(index, 0, EGRESS_PARENT, 0);
    let mut request = Request::new(libc::RTM_GETTFILTER, flags as u16, &body);
    match socket.query(&mut request, |reply| parse(reply, index)) {
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ENOENT)) => Ok(Vec::new()),
        other => other,
    }
}

fn filter_request(kind: u16, flags: libc::c_int, index: u32) -> Request {
    let protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    let body = body(index, HANDLE, EGRESS_PARENT, PREFERENCE << 16 | protocol);
    let mut request = Request::new(kind, flags as u16, &body);
    request.attribute(TCA_CHAIN, &0u32.to_ne_bytes());
    request
}

fn body(index: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut body = [0; TCMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&handle.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body[16..20].copy_from_slice(&info.to_ne_bytes());
    body
}

fn parse(reply: &Reply<'_>, index: u32) -> Option<EgressFilter> {
    let payload = reply.payload;
    let get = |kind| attribute(payload, TCMSG, kind);
    if reply.kind != libc::RTM_NEWTFILTER || u32_at(payload, 4)? != index {
        return None;
    }
    let handle = u32_at(payload, 8)?;
    let chain = get(TCA_CHAIN).and_then(|value| u32_at(value, 0));
    // Handle 0 is the kernel's announcement of a preference, not a filter.
    if handle == 0 || chain.unwrap_or(0) != 0 {
        return None;
    }
    let options = get(TCA_OPTIONS);
    let option = |kind| options.and_then(|nested| attribute(nested, 0, kind));
    Some(EgressFilter {
        preference: u16::try_from(u32_at(payload, 16)? >> 16).ok()?,
        handle,
        kind: text(get(TCA_KIND)?),
        name: option(TCA_BPF_NAME).map(text),
        program_id: option(TCA_BPF_ID).and_then(|value| u32_at(value, 0)),
    })
}
