//! The IKE sockets: one per VIP and port. They are bound to the VIP itself, so that every answer
//! is sourced from it, with `IP_FREEBIND` because in HA mode the VIP may be on another member.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gateway_common::abi;
use gateway_common::slot::Slot;
use gateway_ike::output::Path;
use gateway_ike::wire::NAT_KEEPALIVE;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::xfrm::bypass;

/// IKE (RFC 7296 §2).
pub(super) const IKE_PORT: u16 = 500;
/// IKE and ESP behind NATs (RFC 3948).
pub(super) const NAT_T_PORT: u16 = 4500;
/// Four zero octets where an SPI would stand: IKE, not ESP (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Bursts of a thousand peers that come back at once fit in.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Longest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// A datagram from the network, without non-ESP marker.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) path: Path,
    pub(super) bytes: Vec<u8>,
}

/// All IKE sockets.
pub(super) struct Sockets {
    by_local: BTreeMap<SocketAddr, Arc<UdpSocket>>,
}

impl Sockets {
    /// Binds ports 500 and 4500 of every VIP; received datagrams go to `received`, which drops
    /// what the agent is too slow for.
    ///
    /// # Errors
    /// With the address in the message.
    pub(super) fn bind(vips: &[IpAddr], received: &mpsc::Sender<Datagram>) -> io::Result<Self> {
        let mut by_local = BTreeMap::new();
        for vip in vips {
            for port in [IKE_PORT, NAT_T_PORT] {
                let local = SocketAddr::new(*vip, port);
                let socket = open(local).map_err(|error| {
                    let hint = match error.kind() {
                        io::ErrorKind::AddrInUse => {
                            ": another IKE daemon has it, stop it first (systemctl stop strongswan)"
                        }
                        io::ErrorKind::PermissionDenied => ": root or CAP_NET_ADMIN is needed",
                        _ => "",
                    };
                    io::Error::new(error.kind(), format!("UDP {local}: {error}{hint}"))
                })?;
                let socket = Arc::new(socket);
                tokio::spawn(receive(local, Arc::clone(&socket), received.clone()));
                by_local.insert(local, socket);
            }
        }
        Ok(Self { by_local })
    }

    /// Sends one datagram, marked for the fence; a NAT keepalive as it is. A full queue or an unreachable peer is like a
    /// lost datagram: IKE retransmits.
    pub(super) fn send(&self, path: Path, slot: Slot, bytes: &[u8]) -> io::Result<()> {
        let socket = self
            .by_local
            .get(&path.local)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let reference = SockRef::from(socket.as_ref());
        reference.set_mark(abi::mark(abi::MARK_IKE, slot.0))?;
        let remote = path.remote.into();
        if bytes == NAT_KEEPALIVE {
            reference.send_to(bytes, &remote)?;
        } else if path.local.port() == NAT_T_PORT {
            let parts = [io::IoSlice::new(&NON_ESP_MARKER), io::IoSlice::new(bytes)];
            reference.send_to_vectored(&parts, &remote)?;
        } else {
            reference.send_to(bytes, &remote)?;
        }
        Ok(())
    }
}

fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    match local {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    // The system's limit may be lower; the socket then has what the system allows.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    bypass::exempt_from_policies(&socket, local.ip())?;
    if local.port() == NAT_T_PORT {
        bypass::decapsulate_esp(&socket)?;
    }
    socket.bind(&local.into())?;
    UdpSocket::from_std(socket.into())
}

async fn receive(local: SocketAddr, socket: Arc<UdpSocket>, received: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while !received.is_closed() {
        let (length, remote) = match socket.recv_from(&mut buffer).await {
            Ok(found) => found,
            // An ICMP error about something we sent; the next read goes on.
            Err(error) => {
                tracing::debug!(%local, "receive: {error}");
                continue;
            }
        };
        let Some(bytes) = ike_message(local.port(), &buffer[..length]) else {
            continue;
        };
        let datagram = Datagram {
            path: Path::new(local, remote),
            bytes: bytes.to_vec(),
        };
        if received.try_send(datagram).is_err() {
            tracing::debug!(%local, %remote, "agent busy: datagram dropped");
        }
    }
}

/// The IKE message in a datagram; `None` for NAT keepalives (RFC 3948 §2.3), and for ESP that the
/// kernel did not take.
fn ike_message(port: u16, datagram: &[u8]) -> Option<&[u8]> {
    if port == NAT_T_PORT {
        datagram.strip_prefix(&NON_ESP_MARKER)
    } else {
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ike_is_taken_from_the_nat_traversal_port() {
        assert_eq!(ike_message(NAT_T_PORT, &[0, 0, 0, 0, 7]), Some(&[7][..]));
        assert_eq!(ike_message(NAT_T_PORT, &[0xff]), None);
        assert_eq!(ike_message(NAT_T_PORT, &[0, 0, 1, 0, 7]), None);
        assert_eq!(
            ike_message(IKE_PORT, &[0, 0, 0, 0]),
            Some(&[0, 0, 0, 0][..])
        );
    }
}
