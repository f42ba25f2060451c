//! TCP sockets on the sync interface.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::TransportConfig;

/// DSCP CS6, network control: sync must not wait behind what it steers.
const TOS: u32 = 0xc0;

/// On the sync address only the sync interface is used.
fn open(config: &TransportConfig, local: IpAddr) -> io::Result<TcpSocket> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    match &config.device {
        Some(device) if local == config.address => socket.bind_device(Some(device.as_bytes()))?,
        _ => {}
    }
    Ok(socket)
}

pub(super) fn listen(config: &TransportConfig) -> io::Result<TcpListener> {
    listen_on(config, config.address)
}

pub(super) fn listen_on(config: &TransportConfig, local: IpAddr) -> io::Result<TcpListener> {
    let socket = open(config, local)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(local, config.port))?;
    socket.listen(64)
}

/// Connects from our address to the peer's on the same network.
pub(super) async fn dial(
    config: &TransportConfig,
    (local, remote): (IpAddr, IpAddr),
) -> io::Result<TcpStream> {
    let socket = open(config, local)?;
    socket.bind(SocketAddr::new(local, 0))?;
    let stream = socket.connect(SocketAddr::new(remote, config.port)).await?;
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
