//! TCP to upstreams (RFC 7766): connections that lie idle are used again, oldest first; one query at a time on each.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::kit::clock::{self, Instant};
use crate::kit::errors::UpstreamFault;
use crate::kit::query::Facts;

use super::message::{self, Verdict};
use super::udp;
use super::upstream::Upstream;

/// Messages on a connection that answer something else, before it is closed.
const MISMATCHES_MAX: usize = 8;

/// How connections are made and kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// The address to connect from.
    pub(super) source: Option<IpAddr>,
    /// Closed after lying idle this long.
    pub(super) expire: Duration,
    /// Closed at this age; zero is never.
    pub(super) max_age: Duration,
    /// Idle ones of an upstream at most; zero is any number.
    pub(super) max_idle: usize,
    /// What queries carry beside the client's options, over UDP too.
    pub(super) mark: Option<message::Mark>,
}

/// A worker's idle connections, by upstream.
pub(super) struct Connections {
    idle: Mutex<Vec<VecDeque<Idle>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
    _counted: Counted,
}

struct Connection {
    stream: TcpStream,
    opened_at: Instant,
}

/// One idle connection in the count of its upstream.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Connections {
    pub(super) fn new(upstreams: usize) -> Connections {
        Connections {
            idle: Mutex::new((0..upstreams).map(|_| VecDeque::new()).collect()),
        }
    }

    /// Sends the client's query and waits for the reply.
    pub(super) async fn exchange(
        &self,
        index: usize,
        upstream: &Upstream,
        address: SocketAddr,
        policy: Policy,
        facts: &Facts,
        timeout: Duration,
    ) -> Result<Vec<u8>, UpstreamFault> {
        let id = rand::random();
        let mut frame = vec![0, 0];
        message::write_query(&mut frame, facts, id, policy.mark);
        let mut question = Vec::new();
        message::write_question(&mut question, facts);
        let conversation = async {
            let mut reused = self.take(index, policy);
            loop {
                let was_reused = reused.is_some();
                match was_reused {
                    true => upstream.metrics.reused(true),
                    false => upstream.metrics.opened(true),
                }
                let mut connection = match reused.take() {
                    Some(connection) => connection,
                    None => connect(address, policy.source).await?,
                };
                match converse(&mut connection.stream, &mut frame, |reply| {
                    judge(reply, id, &question, facts)
                })
                .await
                {
                    Ok(reply) => {
                        self.put(index, upstream, policy, connection);
                        return Ok(reply);
                    }
                    // The upstream closed it while it lay idle: once more, on a new one, at no cost.
                    Err(UpstreamFault::Closed) if was_reused => {}
                    Err(fault) => return Err(fault),
                }
            }
        };
        match tokio::time::timeout(timeout, conversation).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamFault::Timeout(timeout)),
        }
    }

    /// Closes what has lain idle for too long.
    pub(super) fn sweep(&self, policy: Policy) {
        let now = clock::now();
        for idle in self.lock().iter_mut() {
            idle.retain(|idle| idle.is_fresh(now, policy));
        }
    }

    fn take(&self, index: usize, policy: Policy) -> Option<Connection> {
        let now = clock::now();
        let mut all = self.lock();
        let idle = all.get_mut(index)?;
        while let Some(oldest) = idle.pop_front() {
            if oldest.is_fresh(now, policy) && is_quiet(&oldest.connection.stream) {
                return Some(oldest.connection);
            }
        }
        None
    }

    fn put(&self, index: usize, upstream: &Upstream, policy: Policy, connection: Connection) {
        let before = upstream.idle_tcp.fetch_add(1, Relaxed);
        let idle = Idle {
            connection,
            since: clock::now(),
            _counted: Counted(Arc::clone(&upstream.idle_tcp)),
        };
        if policy.max_idle > 0 && before >= policy.max_idle {
            return;
        }
        if let Some(list) = self.lock().get_mut(index) {
            list.push_back(idle);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<VecDeque<Idle>>> {
        self.idle
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Idle {
    fn is_fresh(&self, now: Instant, policy: Policy) -> bool {
        let age = now.saturating_duration_since(self.connection.opened_at);
        now.saturating_duration_since(self.since) < policy.expire
            && (policy.max_age.is_zero() || age < policy.max_age)
    }
}

/// Whether nothing has come on an idle connection: neither its end nor a message nobody asked for.
fn is_quiet(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

async fn connect(to: SocketAddr, source: Option<IpAddr>) -> Result<Connection, UpstreamFault> {
    let connecting = async {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if source.is_some() {
            socket.bind(udp::source_address(to, source, 0))?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    match connecting.await {
        Ok(stream) => Ok(Connection {
            stream,
            opened_at: clock::now(),
        }),
        Err(error) => Err(UpstreamFault::Unreachable(error.kind().to_string())),
    }
}

/// What a message on a connection is to the one who waits.
enum Heard {
    Ours,
    Other,
}

fn judge(reply: &[u8], id: u16, question: &[u8], facts: &Facts) -> Heard {
    let same_id = reply.first_chunk() == Some(&id.to_be_bytes());
    match message::judge(reply, question, facts.opcode()) {
        // There is no larger transport to go to: what is here is the answer.
        Verdict::Good | Verdict::Truncated { usable: true } if same_id => Heard::Ours,
        _ => Heard::Other,
    }
}

/// Sends `frame` (two octets are kept free for its length) and reads messages until one is ours.
async fn converse(
    stream: &mut TcpStream,
    frame: &mut [u8],
    judge: impl Fn(&[u8]) -> Heard,
) -> Result<Vec<u8>, UpstreamFault> {
    let length = frame.len().saturating_sub(2) as u16;
    if let Some(head) = frame.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    stream.write_all(frame).await.map_err(fault)?;
    for _ in 0..MISMATCHES_MAX {
        let length = stream.read_u16().await.map_err(fault)?;
        let mut reply = vec![0; usize::from(length)];
        stream.read_exact(&mut reply).await.map_err(fault)?;
        if let Heard::Ours = judge(&reply) {
            return Ok(reply);
        }
    }
    Err(UpstreamFault::Malformed(
        "only answers to other questions".into(),
    ))
}

/// A whole conversation for a message that is not a client's: a probe. Any reply will do.
pub(super) async fn probe(
    to: SocketAddr,
    source: Option<IpAddr>,
    packet: &[u8],
) -> Result<(), UpstreamFault> {
    let mut connection = connect(to, source).await?;
    let mut frame = vec![0, 0];
    frame.extend_from_slice(packet);
    converse(&mut connection.stream, &mut frame, |reply| {
        match reply.get(..3) {
            Some(head) if head[..2] == packet[..2] && head[2] & 0x80 != 0 => Heard::Ours,
            _ => Heard::Other,
        }
    })
    .await?;
    Ok(())
}

fn fault(error: io::Error) -> UpstreamFault {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => UpstreamFault::Closed,
        kind => UpstreamFault::Unreachable(kind.to_string()),
    }
}
