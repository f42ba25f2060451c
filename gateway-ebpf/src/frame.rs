//! Packet memory behind the bounds checks that the verifier demands.

use core::cell::Cell;
use core::mem::transmute_copy;

use aya_ebpf::Global;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_skb_pull_data, bpf_xdp_get_buff_len};
use gateway_common::abi::MemberValue;
use gateway_common::packet::{Frame, MAX_OFFSET, MAX_WIDENED};

/// Whether the kernel knows frames in several buffers, as it does from 5.18 on. The loader sets it
/// to 0 on older ones, and their verifier then never sees the call that they do not have.
#[unsafe(no_mangle)]
static MULTI_BUFFER: Global<u8> = Global::new(1);

/// Octets of the two addresses that an Ethernet header begins with.
const ADDRESSES: usize = 12;
const _: () = assert!(core::mem::offset_of!(MemberValue, mac) == 0);
const _: () = assert!(core::mem::offset_of!(MemberValue, marked_mac) == 6);
const _: () = assert!(align_of::<MemberValue>() >= 4);

/// A frame in an XDP program: what lies in its first buffer. Further buffers of a jumbo frame
/// hold no headers.
pub(crate) struct XdpFrame {
    context: *mut xdp_md,
    data: usize,
    end: usize,
    /// Octets of the frame, as far as somebody had reason to ask for more than the first buffer.
    octets: Cell<usize>,
}

impl XdpFrame {
    #[inline(always)]
    pub(crate) fn new(context: *mut xdp_md) -> Self {
        // SAFETY: the kernel hands a valid context to the program.
        let (data, end) = unsafe { ((*context).data as usize, (*context).data_end as usize) };
        Self {
            context,
            data,
            end,
            octets: Cell::new(end - data),
        }
    }

    /// Octets of the frame. Of a frame in several buffers, the first buffer's if nothing in its
    /// headers told that there is more.
    #[inline(always)]
    pub(crate) fn octets(&self) -> u64 {
        self.octets.get() as u64
    }

    /// Writes both Ethernet addresses to the start of the frame; false if it is shorter.
    #[inline(always)]
    pub(crate) fn write_addresses(&self, to: &MemberValue) -> bool {
        let start = opaque(self.data);
        if start + ADDRESSES > self.end {
            return false;
        }
        // SAFETY: both addresses are the first twelve octets of the value, which has the alignment
        // of words.
        let words = unsafe { core::ptr::from_ref(to).cast::<[u32; 3]>().read() };
        // SAFETY: the range was checked; packet memory has no alignment, and the compiler would
        // store octet by octet.
        unsafe {
            core::arch::asm!(
                "*(u32 *)({start} + 0) = {first}",
                "*(u32 *)({start} + 4) = {second}",
                "*(u32 *)({start} + 8) = {third}",
                start = in(reg) start,
                first = in(reg) u64::from(words[0]),
                second = in(reg) u64::from(words[1]),
                third = in(reg) u64::from(words[2]),
                options(nostack),
            );
        }
        true
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        read_packet(self.data, self.end, offset)
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        if self.octets.get() < length && MULTI_BUFFER.load() != 0 {
            // The call costs more than all other checks: only for cut-off and jumbo frames.
            // SAFETY: as in `new`.
            let octets = unsafe { bpf_xdp_get_buff_len(self.context) };
            self.octets.set(octets as usize);
        }
        self.octets.get() >= length
    }

    #[inline(always)]
    fn widen(&self, value: usize) -> usize {
        widen(value, self.octets.get())
    }
}

/// Octets of a frame that hold all headers that the fence looks at: Ethernet with two tags, IPv4
/// with options (or IPv6 and a fragment header, which are shorter), UDP, SPI and sequence number.
const FENCE_HEADERS: u32 = 14 + 8 + 60 + 8 + 8;

/// A frame in a tc program: its linear part.
pub(crate) struct SkbFrame {
    octets: u32,
    data: usize,
    end: usize,
}

impl SkbFrame {
    /// Headers usually lie in the linear part, but nothing promises it: they are pulled there.
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        let frame = Self::linear(skb);
        let linear = frame.end - frame.data;
        if linear >= FENCE_HEADERS as usize || linear >= frame.octets as usize {
            return frame;
        }
        // SAFETY: as in `linear`; pointers into the packet are read anew below. On failure the
        // frame stays as it is.
        unsafe { bpf_skb_pull_data(skb, frame.octets.min(FENCE_HEADERS)) };
        Self::linear(skb)
    }

    #[inline(always)]
    fn linear(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe {
            Self {
                octets: (*skb).len,
                data: (*skb).data as usize,
                end: (*skb).data_end as usize,
            }
        }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        read_packet(self.data, self.end, offset)
    }

    #[inline(always)]
    fn reaches(&self, length: usize) -> bool {
        self.octets as usize >= length
    }

    #[inline(always)]
    fn widen(&self, value: usize) -> usize {
        widen(value, self.octets as usize)
    }
}

#[inline(always)]
fn read_packet<const N: usize>(data: usize, end: usize, offset: usize) -> Option<[u8; N]> {
    if offset > MAX_OFFSET {
        return None;
    }
    let start = opaque(data + offset);
    let past = start + N;
    if (if N == 1 { opaque(past) } else { past }) > end {
        return None;
    }
    // SAFETY: the range lies within the packet.
    Some(unsafe { load(start) })
}

/// Loads octets from packet memory, which has no alignment: by words all the same, as the machines
/// that run XDP can, where the compiler would load octet by octet. Stack memory must stay aligned
/// for the verifier, so this cannot be asked of the compiler as a whole.
///
/// # Safety
/// `N` octets at `start` must be readable.
#[inline(always)]
unsafe fn load<const N: usize>(start: usize) -> [u8; N] {
    macro_rules! word {
        ($type:literal, $offset:literal) => {{
            let word: u64;
            core::arch::asm!(
                concat!("{0} = *(", $type, " *)({1} + ", $offset, ")"),
                out(reg) word,
                in(reg) start,
                options(pure, readonly, nostack),
            );
            word
        }};
    }
    // SAFETY: the loads by contract of the function. Each source has at least `N` octets, the first
    // ones in the order of memory (the target is little endian).
    unsafe {
        match N {
            2 => transmute_copy(&word!("u16", "0")),
            4 => transmute_copy(&word!("u32", "0")),
            8 => transmute_copy(&word!("u64", "0")),
            16 => transmute_copy(&[word!("u64", "0"), word!("u64", "8")]),
            _ => (start as *const [u8; N]).read_unaligned(),
        }
    }
}

/// Hides from the compiler where a value comes from. Else it computes a pointer anew after the
/// check, and the verifier does not see that it is the one that was checked; or it turns
/// `start + 1 > end` into `start >= end`, of which the verifier learns nothing. A real instruction,
/// because the line table may not name one address twice.
#[inline(always)]
fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack));
    }
    value
}

/// See [`Frame::widen`]. The verifier computes with bits that it knows, but `unknown` is a number of
/// which it knows none: combined with it twice, the value is the same to the machine and unknown to
/// the verifier. To swap its octets twice would do too, had newer verifiers not learned to follow.
/// The bound is set here because older verifiers, as Linux 6.1's, do not know that a number on the
/// stack equals its copy in a register: of one bounded by a comparison they would not bound the other.
#[inline(always)]
fn widen(mut value: usize, unknown: usize) -> usize {
    // SAFETY: registers only. In assembly because the compiler would see through it.
    unsafe {
        core::arch::asm!(
            "{value} ^= {unknown}",
            "{value} ^= {unknown}",
            "{value} &= {bound}",
            value = inout(reg) value,
            unknown = in(reg) unknown,
            bound = const MAX_WIDENED,
            options(pure, nomem, nostack),
        );
    }
    value
}
