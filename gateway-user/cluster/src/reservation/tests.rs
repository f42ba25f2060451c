use std::time::Duration;

use gateway_common::slot::Slot;
use gateway_common::time::Instant;

use super::{ALONE, Holding, Reservations, SpiIn};
use crate::change::{Reserved, Stamp};
use crate::frame::DeltaSeq;
use crate::view::{Epoch, Tenure};

const SPI_IN: SpiIn = [1, 2, 3, 4];

/// Alone and very fast an owner uses no more than the bound; with a majority it goes on.
#[test]
fn half_of_a_view_stops_at_its_bound() {
    let tenure = Tenure(3);
    let holding = Holding {
        tenure,
        owned: true,
    };
    let mut numbers = Reservations::default();
    let first = Reserved::first(Slot(1), tenure);
    numbers.open([1; 8], SPI_IN, first, holding, true);
    let shared = numbers.standing(SPI_IN).map_or(0, |s| s.ceiling);
    numbers.isolate();
    let mut seq = DeltaSeq(0);
    let mut now = Instant::from_nanos(1);
    let mut exhaust = |numbers: &mut Reservations, most: u64| loop {
        let last = numbers.standing(SPI_IN).map_or(0, |s| s.ceiling);
        if last > most || !numbers.sent(now, SPI_IN, last, tenure) {
            return last;
        }
        seq = seq.next();
        now = now + Duration::from_micros(1);
        let stamp = Stamp {
            epoch: Epoch(2),
            seq,
        };
        assert!(numbers.write(SPI_IN, tenure, stamp).is_some());
        numbers.released(seq);
    };
    assert_eq!(exhaust(&mut numbers, u64::MAX), shared + ALONE);
    // Whoever took it over stands above all that.
    let jumped = Tenure(tenure.0 + Tenure::new(1, 1).0);
    assert!(first.limit(jumped) > shared + ALONE);
    numbers.rejoin();
    assert!(exhaust(&mut numbers, shared + ALONE) > shared + ALONE);
}
