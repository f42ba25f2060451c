//! Views and remaining leases.

use std::collections::BTreeMap;

use gateway_common::slot::Slot;

use super::cursor::{Cursor, Writer};
use super::{DecodeError, Left};
use crate::frame::Incarnation;
use crate::slot_map::SlotMap;
use crate::view::{Epoch, Tenure, Tenures, View};

pub(super) fn encode(out: &mut Writer, view: &View) {
    out.u64(view.epoch.0);
    out.u8(u8::try_from(view.members.len()).unwrap_or(u8::MAX));
    for (member, incarnation) in &view.members {
        out.member(Some(*member));
        out.u64(incarnation.0);
    }
    for (_, owner) in view.slots.iter() {
        out.member(owner);
    }
    encode_words(out, &words(&view.tenures, Tenure::number));
}

/// The jumps of a view's ownerships, which stand behind everything else: an earlier version skips
/// them.
pub(super) fn encode_jumps(out: &mut Writer, view: &View) {
    encode_words(out, &words(&view.tenures, Tenure::jumps));
}

fn words(tenures: &Tenures, half: impl Fn(Tenure) -> u32) -> [u32; Slot::COUNT] {
    tenures.numbers().map(|number| half(Tenure(number)))
}

/// The lowest, then what each slot's is above it, in as few bits as all of them fit in; the lowest
/// bits come first. The number of slots is a multiple of eight.
fn encode_words(out: &mut Writer, numbers: &[u32; Slot::COUNT]) {
    let lowest = numbers.iter().min().copied().unwrap_or(0);
    let highest = numbers.iter().max().copied().unwrap_or(0);
    let bits = u32::BITS - (highest - lowest).leading_zeros();
    out.u32(lowest);
    out.u8(bits as u8);
    let (mut waiting, mut count) = (0u64, 0);
    for number in numbers {
        waiting |= u64::from(number - lowest) << count;
        count += bits;
        while count >= 8 {
            out.u8(waiting as u8);
            waiting >>= 8;
            count -= 8;
        }
    }
}

fn decode_words(body: &mut Cursor<'_>) -> Result<[u32; Slot::COUNT], DecodeError> {
    let lowest = body.u32()?;
    let bits = u32::from(body.u8()?);
    if bits > u32::BITS {
        return Err(DecodeError::Invalid("width"));
    }
    let (mut waiting, mut count) = (0u64, 0);
    let mut numbers = [0; Slot::COUNT];
    for number in &mut numbers {
        while count < bits {
            waiting |= u64::from(body.u8()?) << count;
            count += 8;
        }
        let above = waiting & ((1 << bits) - 1);
        waiting >>= bits;
        count -= bits;
        *number = lowest
            .checked_add(above as u32)
            .ok_or(DecodeError::Invalid("tenure"))?;
    }
    Ok(numbers)
}

/// Of a view that was decoded without; an earlier version has none.
pub(super) fn decode_jumps(body: &mut Cursor<'_>, view: &mut View) -> Result<(), DecodeError> {
    if body.0.is_empty() {
        return Ok(());
    }
    let jumps = decode_words(body)?;
    let numbers = words(&view.tenures, Tenure::number);
    view.tenures = Tenures::from_numbers(std::array::from_fn(|slot| {
        Tenure::new(jumps[slot], numbers[slot]).0
    }));
    Ok(())
}

pub(super) fn decode(body: &mut Cursor<'_>) -> Result<View, DecodeError> {
    let epoch = Epoch(body.u64()?);
    let mut members = BTreeMap::new();
    for _ in 0..body.u8()? {
        members.insert(body.member()?, Incarnation(body.u64()?));
    }
    let mut owners = [None; Slot::COUNT];
    for owner in &mut owners {
        *owner = body.optional_member()?;
        if owner.is_some_and(|owner| !members.contains_key(&owner)) {
            return Err(DecodeError::Invalid("owner"));
        }
    }
    Ok(View {
        epoch,
        members,
        slots: SlotMap::from_owners(owners),
        tenures: Tenures::from_numbers(decode_words(body)?.map(u64::from)),
    })
}

pub(super) fn encode_left(out: &mut Writer, left: &Left) {
    out.u32(left.settle);
    out.u8(u8::try_from(left.owners.len()).unwrap_or(u8::MAX));
    for (owner, micros) in &left.owners {
        out.member(Some(*owner));
        out.u32(*micros);
    }
}

pub(super) fn decode_left(body: &mut Cursor<'_>) -> Result<Left, DecodeError> {
    let settle = body.u32()?;
    let count = body.u8()?;
    let owners = (0..count).map(|_| Ok((body.member()?, body.u32()?)));
    Ok(Left {
        settle,
        owners: owners.collect::<Result<_, DecodeError>>()?,
    })
}
