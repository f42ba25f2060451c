//! stub
use gateway_common::member::MemberId;
use std::sync::Arc;
/// e
#[derive(Debug)]
pub enum TransportEvent {
    /// c
    Connected {
        /// m
        member: MemberId,
    },
    /// d
    Disconnected {
        /// m
        member: MemberId,
    },
    /// f
    Frame {
        /// m
        member: MemberId,
        /// b
        bytes: Vec<u8>,
    },
}
/// t
pub struct Transport;
/// c
pub struct TransportConfig;
impl Transport {
    /// s
    pub fn start(
        _c: TransportConfig,
        _e: tokio::sync::mpsc::Sender<TransportEvent>,
    ) -> std::io::Result<Self> {
        Ok(Self)
    }
    /// s
    pub fn send(
        &self,
        _to: MemberId,
        _f: Arc<gateway_cluster::secret::Secret>,
        _c: gateway_cluster::output::Class,
    ) {
    }
    /// d
    pub fn disconnect(&self, _m: MemberId) {}
}
