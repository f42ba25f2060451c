//! What installing SAs costs, against a request that does nothing.

use std::time::Instant;

use anyhow::{Result, ensure};
use gateway_ike::crypto::Encryption;
use gateway_ike::secret::SecretBytes;
use gateway_user::xfrm::{EVENT_EVERY_OUT, Position, Replay, Request, Sa, SaId, SaKernel};

const COUNT: u32 = 512;
const ROUNDS: usize = 5;

/// An SA with this number in its SPI.
pub(super) fn sa(number: u32, esn: bool) -> Sa {
    Sa {
        id: SaId::new((0xcc00_0000 | number).to_be_bytes(), [192, 0, 2, 2].into()),
        src: [192, 0, 2, 1].into(),
        reqid: 0x4700_0000 | number,
        encryption: Encryption::AesGcm16Key128,
        key: SecretBytes::new(vec![number as u8; 20]),
        encapsulation: None,
        replay: Replay {
            window: if esn { 128 } else { 32 },
            esn,
        },
        output_mark: None,
        if_id: 0,
        hard_lifetime_seconds: 3600,
        quota: gateway_ike::output::Quota::default(),
        start: Position::default(),
        event_every: EVENT_EVERY_OUT,
    }
}

/// µs per request.
#[derive(Clone, Copy)]
struct Costs {
    nothing: f64,
    install: f64,
    query: f64,
    dump: f64,
    delete: f64,
}

/// Installs and deletes [`COUNT`] SAs in batches, [`ROUNDS`] times, and reports each cost's best
/// round, also as a multiple of deleting what is not there: other work on the machine only ever
/// adds.
pub(super) fn installation(kernel: &mut dyn SaKernel) -> Result<String> {
    let sas: Vec<Sa> = (1..=COUNT).map(|number| sa(number, true)).collect();
    // The first SA sets the algorithm up.
    kernel.install_sa(&sas[0])?;
    kernel.delete_sa(&sas[0].id)?;
    let mut best = round(kernel, &sas)?;
    for _ in 1..ROUNDS {
        let costs = round(kernel, &sas)?;
        best = Costs {
            nothing: best.nothing.min(costs.nothing),
            install: best.install.min(costs.install),
            query: best.query.min(costs.query),
            dump: best.dump.min(costs.dump),
            delete: best.delete.min(costs.delete),
        };
    }
    let times = |cost: f64| format!("{cost:.1} µs ({:.1} x)", cost / best.nothing);
    Ok(format!(
        "per SA: no-op {:.1} µs, install {}, delete {}, query {}, dump {}",
        best.nothing,
        times(best.install),
        times(best.delete),
        times(best.query),
        times(best.dump)
    ))
}

fn round(kernel: &mut dyn SaKernel, sas: &[Sa]) -> Result<Costs> {
    let deletions: Vec<Request<'_>> = sas.iter().map(|sa| Request::DeleteSa(&sa.id)).collect();
    let installations: Vec<Request<'_>> = sas.iter().map(Request::NewSa).collect();
    let (nothing, failed) = time(kernel, &deletions);
    ensure!(failed == COUNT, "there were SAs before");
    let (install, failed) = time(kernel, &installations);
    ensure!(failed == 0, "{failed} of {COUNT} were refused");
    let start = Instant::now();
    let dumped = kernel.dump_sas()?.len();
    let dump = per_request(start);
    ensure!(dumped == COUNT as usize, "{dumped} of {COUNT} in the dump");
    let start = Instant::now();
    for sa in sas {
        kernel.query_sa(&sa.id)?;
    }
    let query = per_request(start);
    let (delete, failed) = time(kernel, &deletions);
    ensure!(failed == 0, "{failed} of {COUNT} were not there");
    Ok(Costs {
        nothing,
        install,
        query,
        dump,
        delete,
    })
}

fn per_request(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT)
}

fn time(kernel: &mut dyn SaKernel, requests: &[Request<'_>]) -> (f64, u32) {
    let start = Instant::now();
    let results = kernel.apply(requests);
    let micros = per_request(start);
    let failed = results.iter().filter(|result| result.is_err()).count();
    (micros, failed as u32)
}
