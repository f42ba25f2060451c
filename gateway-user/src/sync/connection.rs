//! One connection: frames in, frames out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gateway_cluster::output::Class;
use gateway_cluster::secret::Secret;
use gateway_common::member::MemberId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use zeroize::{Zeroize, Zeroizing};

use super::{MAX_FRAME, Report, SendError, Shared, TransportCounters, count};

/// Small frames are written together up to about this many octets, one TLS record.
const BATCH: usize = 16 << 10;

/// What a queued frame costs at least, so that tiny ones cannot be queued without end.
const OVERHEAD: usize = 64;

/// Frames that wait to be written.
#[derive(Debug)]
pub(super) struct Queue {
    frames: mpsc::UnboundedSender<Arc<Secret>>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
    closed: Arc<Notify>,
    reason: Mutex<Option<&'static str>>,
}

/// The other end of a [`Queue`].
pub(super) struct Outgoing {
    frames: mpsc::UnboundedReceiver<Arc<Secret>>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn new(limit: usize) -> (Arc<Self>, Outgoing) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let queue = Self {
            frames: sender,
            waiting: Arc::clone(&waiting),
            limit,
            closed: Arc::new(Notify::new()),
            reason: Mutex::new(None),
        };
        let outgoing = Outgoing {
            frames: receiver,
            waiting,
        };
        (Arc::new(queue), outgoing)
    }

    pub(super) fn push(
        &self,
        frame: Arc<Secret>,
        class: Class,
        counters: &TransportCounters,
    ) -> Result<(), SendError> {
        let limit = match class {
            Class::Stream => self.limit,
            Class::Datagram => self.limit / 4,
        };
        let cost = frame.len() + OVERHEAD;
        if self.waiting.load(Ordering::Relaxed) + cost > limit {
            match class {
                Class::Stream => {
                    count(&counters.overflows, 1);
                    self.close("it does not keep up: the send queue is full");
                }
                Class::Datagram => count(&counters.datagrams_dropped, 1),
            }
            return Err(SendError::QueueFull);
        }
        self.waiting.fetch_add(cost, Ordering::Relaxed);
        self.frames.send(frame).map_err(|_| SendError::NotConnected)
    }

    /// Ends the connection.
    pub(super) fn close(&self, reason: &'static str) {
        let mut noted = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get_or_insert(reason);
        // A permit is kept if nobody waits yet.
        self.closed.notify_one();
    }

    /// Waits for [`Queue::close`].
    pub(super) async fn closed(&self) -> String {
        self.closed.notified().await;
        let noted = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        noted.unwrap_or("closed").to_owned()
    }
}

/// Writes what is queued until the connection breaks; says why.
pub(super) async fn write_all(
    mut stream: impl AsyncWrite + Unpin,
    mut outgoing: Outgoing,
    counters: &TransportCounters,
) -> String {
    match write_frames(&mut stream, &mut outgoing, counters).await {
        Ok(()) => "closed".into(),
        Err(error) => format!("cannot write: {error}"),
    }
}

async fn write_frames(
    stream: &mut (impl AsyncWrite + Unpin),
    outgoing: &mut Outgoing,
    counters: &TransportCounters,
) -> io::Result<()> {
    // Never grows, so no copy of a secret is left behind.
    let mut batch = Zeroizing::new(Vec::with_capacity(BATCH));
    let mut next = outgoing.frames.recv().await;
    while let Some(frame) = next.take() {
        let mut taken = 0;
        let mut current = Some(frame);
        while let Some(frame) = current.take() {
            // `send` refuses frames above MAX_FRAME.
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes();
            if batch.len() + length.len() + frame.len() > BATCH {
                stream.write_all(&batch).await?;
                batch.zeroize();
            }
            if length.len() + frame.len() > BATCH {
                stream.write_all(&length).await?;
                stream.write_all(frame.expose()).await?;
            } else {
                batch.extend_from_slice(&length);
                batch.extend_from_slice(frame.expose());
            }
            taken += frame.len() + OVERHEAD;
            count(&counters.bytes_out, frame.len() as u64);
            if taken < BATCH {
                current = outgoing.frames.try_recv().ok();
            }
        }
        stream.write_all(&batch).await?;
        batch.zeroize();
        stream.flush().await?;
        outgoing.waiting.fetch_sub(taken, Ordering::Relaxed);
        next = outgoing.frames.recv().await;
    }
    Ok(())
}

/// Reads frames and hands them on until the connection breaks; says why. `heard` is set with the
/// first one.
pub(super) async fn read_all(
    mut stream: impl AsyncRead + Unpin,
    member: MemberId,
    events: &mpsc::Sender<Report>,
    shared: &Shared,
    heard: &mut bool,
) -> String {
    let counters = &shared.counters;
    loop {
        match read_frame(&mut stream).await {
            Ok(bytes) => {
                if !*heard {
                    *heard = true;
                    shared.forget_error(member);
                }
                count(&counters.bytes_in, bytes.len() as u64);
                if events.send(Report::Frame(member, bytes)).await.is_err() {
                    return "shutting down".into();
                }
            }
            Err(ReadError::Length(length)) => {
                count(&counters.bad_lengths, 1);
                return format!("it sent a frame of {length} octets, 1 to {MAX_FRAME} are allowed");
            }
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return "closed by the peer".into();
            }
            Err(ReadError::Io(error)) => return format!("cannot read: {error}"),
        }
    }
}

#[derive(Debug)]
pub(super) enum ReadError {
    Length(u32),
    Io(io::Error),
}

/// One frame. Nothing is allocated before its length was checked.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Result<Secret, ReadError> {
    let length = stream.read_u32().await.map_err(ReadError::Io)?;
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size == 0 || size > MAX_FRAME {
        return Err(ReadError::Length(length));
    }
    let mut bytes = Zeroizing::new(vec![0; size]);
    stream.read_exact(&mut bytes).await.map_err(ReadError::Io)?;
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}
