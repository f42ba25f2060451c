//! TCP sockets on the sync interface.

use std::io;
use std::net::SocketAddr;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{PeerAddress, TransportConfig};

/// DSCP CS6, network control: sync must not wait behind what it steers.
const TOS: u32 = 0xc0;

fn open(config: &TransportConfig) -> io::Result<TcpSocket> {
    let socket = if config.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(device) = &config.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

pub(super) fn listen(config: &TransportConfig) -> io::Result<TcpListener> {
    let socket = open(config)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(config.address, config.port))?;
    socket.listen(64)
}

/// Connects from our sync address to the peer's.
pub(super) async fn dial(config: &TransportConfig, peer: PeerAddress) -> io::Result<TcpStream> {
    let socket = open(config)?;
    socket.bind(SocketAddr::new(config.address, 0))?;
    let stream = socket
        .connect(SocketAddr::new(peer.address, config.port))
        .await?;
    prepare(config, &stream)?;
    Ok(stream)
}

/// Options of every connection: small frames leave at once, a dead peer is noticed.
pub(super) fn prepare(config: &TransportConfig, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(config.limits.user_timeout))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(config.limits.user_timeout))?;
    // Only a hint to queues on the way.
    let _ = if config.address.is_ipv4() {
        socket.set_tos_v4(TOS)
    } else {
        socket.set_tclass_v6(TOS)
    };
    Ok(())
}
