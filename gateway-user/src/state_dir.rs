//! What must survive a restart: of a member the epoch, of the witness its votes, of both the number
//! of the last run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use gateway_cluster::frame::Incarnation;
use gateway_cluster::membership::Persisted;

const VIEW: &str = "view";
const VOTES: &str = "votes";
const RUN: &str = "run";

/// The folder `state_dir`.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if it is not there.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// What [`Store::write_view`] wrote last; the default if there is nothing.
    pub(crate) fn read_view(&self) -> io::Result<Persisted> {
        let Some(octets) = self.read(VIEW)? else {
            return Ok(Persisted::default());
        };
        Persisted::decode(&octets).ok_or_else(|| self.foreign(VIEW))
    }

    /// What [`Store::write_votes`] wrote last; nothing if it never did.
    pub(crate) fn read_votes(&self) -> io::Result<Vec<u8>> {
        Ok(self.read(VOTES)?.unwrap_or_default())
    }

    /// Writes through to the disk.
    pub(crate) fn write_votes(&self, votes: &[u8]) -> io::Result<()> {
        self.write(VOTES, votes)
    }

    /// Writes through to the disk.
    pub(crate) fn write_view(&self, persisted: &Persisted) -> io::Result<()> {
        self.write(VIEW, &persisted.encode())
    }

    /// The number of the run that begins now: larger than any before, on disk when this returns.
    pub(crate) fn next_run(&self) -> io::Result<Incarnation> {
        let last = self.read_array::<8>(RUN)?.map_or(0, u64::from_be_bytes);
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let next = run_after(last, seconds);
        self.write(RUN, &next.to_be_bytes())?;
        Ok(Incarnation(next))
    }

    fn read_array<const N: usize>(&self, name: &str) -> io::Result<Option<[u8; N]>> {
        let Some(octets) = self.read(name)? else {
            return Ok(None);
        };
        let octets = octets.try_into().map_err(|_| self.foreign(name))?;
        Ok(Some(octets))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, &error)),
        };
        let octets = HEXLOWER.decode(text.trim().as_bytes());
        octets.map(Some).map_err(|_| self.foreign(name))
    }

    fn foreign(&self, name: &str) -> io::Error {
        let reason = "not what gatewayd wrote; remove it if the other members are running";
        let error = io::Error::new(io::ErrorKind::InvalidData, reason);
        named(&self.folder.join(name), &error)
    }

    /// The old content or the new one, whenever the power fails.
    fn write(&self, name: &str, octets: &[u8]) -> io::Result<()> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!("{name}.new"));
        let write = || {
            let mut file = File::create(&new)?;
            writeln!(file, "{}", HEXLOWER.encode(octets))?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| named(&path, &error))
    }
}

/// Seconds and, below them, 16 bits that count the runs: the engine's IVs hold these bits, so they
/// must not repeat for 65,536 runs. A clock that was put back does not make the number smaller.
fn run_after(last: u64, seconds: u64) -> u64 {
    let count = (last & 0xffff) + 1;
    let seconds = seconds.max(last >> 16);
    if count > 0xffff {
        (seconds + 1) << 16
    } else {
        seconds << 16 | count
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use gateway_cluster::membership::MemberSet;
    use gateway_cluster::view::{Epoch, Tenure};

    use super::*;

    #[test]
    fn what_was_written_is_read_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        assert_eq!(store.read_view().unwrap(), Persisted::default());
        let view = Persisted {
            epoch: Epoch(77),
            members: MemberSet::from_bits(0b1110),
            latest: Tenure(9),
        };
        store.write_view(&view).unwrap();
        assert_eq!(store.read_view().unwrap(), view);
        store.write(VIEW, &view.encode()[..16]).unwrap();
        let latest = Tenure(0);
        let earlier = Persisted { latest, ..view };
        assert_eq!(store.read_view().unwrap(), earlier);
        let first = store.next_run().unwrap();
        assert!(store.next_run().unwrap() > first);
        assert!(store.read_votes().unwrap().is_empty());
        store.write_votes(b"for 2").unwrap();
        assert_eq!(store.read_votes().unwrap(), b"for 2");
        fs::write(folder.path().join("state/view"), "7\n").unwrap();
        let error = store.read_view().unwrap_err().to_string();
        assert!(error.contains("state/view"), "{error}");
    }

    #[test]
    fn runs_count_up_whatever_the_clock_does() {
        let first = run_after(0, 1000);
        let mut last = first;
        for seconds in [1000, 5, 0, 2000, 1999] {
            let next = run_after(last, seconds);
            assert!(next > last, "{seconds}");
            last = next;
        }
        let wrapping = run_after(1000 << 16 | 0xffff, 1000);
        assert!(wrapping > (1000 << 16 | 0xffff));
        assert_eq!(first & 0xffff, 1);
    }
}
