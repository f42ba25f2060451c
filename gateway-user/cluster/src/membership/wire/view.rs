//! Views and remaining leases.

use std::collections::BTreeMap;

use gateway_common::slot::Slot;

use super::cursor::{Cursor, Writer};
use super::{DecodeError, Left};
use crate::frame::Incarnation;
use crate::slot_map::SlotMap;
use crate::view::{Epoch, Tenures, View};

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
    encode_tenures(out, &view.tenures);
}

/// The lowest, then what each slot's is above it, in as few octets as all of them fit in.
fn encode_tenures(out: &mut Writer, tenures: &Tenures) {
    let numbers = tenures.numbers();
    let lowest = numbers.iter().min().copied().unwrap_or(0);
    let highest = numbers.iter().max().copied().unwrap_or(0);
    let width = match highest - lowest {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    out.u32(lowest);
    out.u8(width);
    for number in numbers {
        let above = (number - lowest).to_be_bytes();
        out.bytes(&above[4 - usize::from(width)..]);
    }
}

fn decode_tenures(body: &mut Cursor<'_>) -> Result<Tenures, DecodeError> {
    let lowest = body.u32()?;
    let width = body.u8()?;
    let mut numbers = [0; Slot::COUNT];
    for number in &mut numbers {
        let above = match width {
            1 => u32::from(body.u8()?),
            2 => u32::from(body.u16()?),
            4 => body.u32()?,
            _ => return Err(DecodeError::Invalid("width")),
        };
        *number = lowest
            .checked_add(above)
            .ok_or(DecodeError::Invalid("tenure"))?;
    }
    Ok(Tenures::from_numbers(numbers))
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
        tenures: decode_tenures(body)?,
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
