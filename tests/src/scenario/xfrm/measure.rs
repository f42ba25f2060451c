//! What installing SAs costs, against a request that does nothing.

use std::time::Instant;

use anyhow::{Result, ensure};
use gateway_ike::crypto::Encryption;
use gateway_ike::secret::SecretBytes;
use gateway_user::xfrm::{Replay, Request, Sa, SaId, SaKernel};

const COUNT: u32 = 1024;

/// An SA with this number in its SPI.
pub(super) fn sa(number: u32, esn: bool) -> Sa {
    Sa {
        id: SaId {
            spi: (0xcc00_0000 | number).to_be_bytes(),
            dst: [192, 0, 2, 2].into(),
        },
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
    }
}

/// Installs and deletes [`COUNT`] SAs; µs per request, and as a multiple of a deletion of nothing.
pub(super) fn installation(kernel: &mut dyn SaKernel) -> Result<String> {
    let sas: Vec<Sa> = (1..=COUNT).map(|number| sa(number, true)).collect();
    let delete: Vec<Request<'_>> = sas.iter().map(|sa| Request::DeleteSa(&sa.id)).collect();
    let install: Vec<Request<'_>> = sas.iter().map(Request::NewSa).collect();
    // The first SA sets the algorithm up.
    kernel.install_sa(&sas[0])?;
    kernel.delete_sa(&sas[0].id)?;
    let (nothing, failed) = time(kernel, &delete);
    ensure!(failed == COUNT, "there were SAs before");
    let (installed, failed) = time(kernel, &install);
    ensure!(failed == 0, "{failed} of {COUNT} were refused");
    let start = Instant::now();
    let dumped = kernel.dump_sas()?.len();
    let dump = start.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT);
    ensure!(dumped == COUNT as usize, "{dumped} of {COUNT} in the dump");
    let start = Instant::now();
    for sa in &sas {
        kernel.query_sa(&sa.id)?;
    }
    let query = start.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT);
    let (deleted, failed) = time(kernel, &delete);
    ensure!(failed == 0, "{failed} of {COUNT} were not there");
    Ok(format!(
        "per SA: no-op {nothing:.1} µs, install {installed:.1} µs ({:.1} x), delete {deleted:.1} µs \
         ({:.1} x), query {query:.1} µs, dump {dump:.1} µs",
        installed / nothing,
        deleted / nothing
    ))
}

fn time(kernel: &mut dyn SaKernel, requests: &[Request<'_>]) -> (f64, u32) {
    let start = Instant::now();
    let results = kernel.apply(requests);
    let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT);
    let failed = results.iter().filter(|result| result.is_err()).count();
    (micros, failed as u32)
}
