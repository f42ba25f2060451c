//! The responder on a third host: `gatewayd --witness`.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use gateway_cluster::membership::witness::{Witness, WitnessOutput};
use gateway_common::member::MemberId;

use super::WITNESS_LINK;
use super::keys::SessionKeys;
use super::wire::{self, Envelope, Header, MAX_DATAGRAM, WITNESS};
use crate::clock;
use crate::config::WitnessConfig;
use crate::state_dir::Store;

/// Socket and keys of the witness.
struct Responder {
    cluster: u8,
    socket: UdpSocket,
    keys: BTreeMap<MemberId, SessionKeys>,
    /// Where each member spoke from last.
    addresses: BTreeMap<MemberId, SocketAddr>,
}

/// Answers the members until the process is stopped.
///
/// # Errors
/// Socket or folder cannot be used. A vote that cannot be put on disk ends the process, too: it must
/// not be given.
pub fn serve(config: &WitnessConfig) -> io::Result<()> {
    let store = Store::open(&config.state_dir)?;
    let run = store.next_run()?;
    let votes = store.read_votes()?;
    let mut responder = Responder::open(config)?;
    let mut witness = Witness::new(config.timing, run, &config.members, clock::now(), &votes);
    tracing::info!(
        address = %responder.socket.local_addr()?,
        "witness for members {:?}",
        config.members
    );
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let Some((member, body)) = responder.receive(&mut buffer)? else {
            continue;
        };
        witness.handle_datagram(clock::now(), member, WITNESS_LINK, &body);
        while let Some(output) = witness.poll_output() {
            match output {
                WitnessOutput::Send { to, datagram, .. } => responder.send(to, &datagram),
                WitnessOutput::Persist(votes) => store.write_votes(&votes)?,
            }
        }
    }
}

impl Responder {
    fn open(config: &WitnessConfig) -> io::Result<Self> {
        let address = SocketAddr::new(config.listen, config.port);
        let socket = UdpSocket::bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("UDP {address}: {error}")))?;
        let keys = |member: &MemberId| {
            let keys = SessionKeys::from_shared(WITNESS, member.get(), config.key.expose());
            (*member, keys)
        };
        Ok(Self {
            cluster: config.cluster,
            socket,
            keys: config.members.iter().map(keys).collect(),
            addresses: BTreeMap::new(),
        })
    }

    /// The next authentic datagram; `None` for another one.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(MemberId, Vec<u8>)>> {
        let (length, from) = match self.socket.recv_from(buffer) {
            Ok(received) => received,
            // ICMP errors about earlier answers.
            Err(error) if is_about_an_answer(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let authentic = Envelope::parse(&buffer[..length]).and_then(|envelope| {
            let header = envelope.header;
            let member = MemberId::new(header.from)?;
            let keys = self.keys.get(&member)?;
            let fits = header.cluster == self.cluster
                && header.to == WITNESS
                && header.key == keys.id()
                && keys.verify(envelope.signed, envelope.tag);
            fits.then(|| (member, envelope.body.to_vec()))
        });
        if let Some((member, _)) = &authentic {
            self.addresses.insert(*member, from);
        }
        Ok(authentic)
    }

    /// To a member that was heard; what is lost is asked for again.
    fn send(&self, to: MemberId, body: &[u8]) {
        let (Some(keys), Some(address)) = (self.keys.get(&to), self.addresses.get(&to)) else {
            return;
        };
        let header = Header {
            cluster: self.cluster,
            from: WITNESS,
            to: to.get(),
            key: keys.id(),
        };
        if let Some(datagram) = wire::seal(header, body, |octets| keys.sign(octets))
            && let Err(error) = self.socket.send_to(&datagram, address)
        {
            tracing::debug!(%to, "answer not sent: {error}");
        }
    }
}

fn is_about_an_answer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_that_have_the_key_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        crate::pki::witness_key(&file, false).unwrap();
        let text = format!(
            "members = [1, 2]\nlisten = \"127.0.0.1\"\nport = 1\nkey_file = \"{}\"\n",
            file.display()
        );
        let own = folder.path().join("witness.toml");
        std::fs::write(&own, text).unwrap();
        let config = WitnessConfig {
            port: 0,
            ..WitnessConfig::load(&own).unwrap()
        };
        let mut responder = Responder::open(&config).unwrap();
        let to = responder.socket.local_addr().unwrap();
        let member = UdpSocket::bind("127.0.0.1:0").unwrap();
        let keys = SessionKeys::from_shared(2, WITNESS, config.key.expose());
        let header = |from| Header {
            cluster: 1,
            from,
            to: WITNESS,
            key: keys.id(),
        };
        let mut buffer = [0; MAX_DATAGRAM];
        let two = MemberId::new(2).unwrap();
        for (from, expected) in [(1, None), (3, None), (2, Some((two, b"vote?".to_vec())))] {
            let datagram = wire::seal(header(from), b"vote?", |octets| keys.sign(octets)).unwrap();
            responder.send(two, b"not heard yet");
            member.send_to(&datagram, to).unwrap();
            assert_eq!(responder.receive(&mut buffer).unwrap(), expected, "{from}");
        }
        responder.send(two, b"yes");
        let (length, _) = member.recv_from(&mut buffer).unwrap();
        let envelope = Envelope::parse(&buffer[..length]).unwrap();
        assert_eq!(envelope.body, b"yes");
        assert!(keys.verify(envelope.signed, envelope.tag));
    }
}
