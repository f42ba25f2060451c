//! A TCP port in front of a Unix socket, as `ssh -L` makes one.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A port on the loopback address. Connections after it was dropped are refused.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Forwarder {
    /// A port of its own choice; the socket is looked for at each connection.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, socket) = (Arc::clone(&ended), socket.to_owned());
        std::thread::spawn(move || serve(&listener, &socket, &stop));
        Ok(Self { address, ended })
    }

    /// What a browser opens.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(listener: &TcpListener, socket: &PathBuf, ended: &AtomicBool) {
    while let Ok((client, _)) = listener.accept() {
        if ended.load(Ordering::Acquire) {
            return;
        }
        // Nobody there: the client's connection is closed by leaving it.
        if let Ok(member) = UnixStream::connect(socket) {
            let _ = join(client, member);
        }
    }
}

fn join(client: TcpStream, member: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_member) = (client.try_clone()?, member.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_member);
        let _ = to_member.shutdown(Shutdown::Write);
    });
    let (mut from_member, mut to_client) = (member, client);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_member, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}
