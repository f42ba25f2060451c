//! The packet logic of the eBPF programs.

use gateway_common::model::cases::all;
use gateway_common::model::mutate::{Random, mutate};
use gateway_common::model::properties::check;

/// Any octets as a frame.
pub(super) fn frame(data: &[u8]) {
    check(data);
}

/// Eight octets of seed: frames that are almost right.
pub(super) fn mutated(data: &[u8]) {
    let Some(seed) = data.first_chunk() else {
        return;
    };
    let frames: Vec<_> = all().into_iter().map(|case| case.frame).collect();
    let mut random = Random(u64::from_be_bytes(*seed));
    for _ in 0..16 {
        check(&mutate(&mut random, &frames));
    }
}
