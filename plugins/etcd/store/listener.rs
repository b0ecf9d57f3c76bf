//! The API's socket: bound once, kept over reloads, accepting for whichever generation is at work.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Store;
use super::api::Api;

/// Connections at once; each watch has one.
const CONNECTIONS_MAX: usize = 256;
/// For the head of a request, and between requests on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// After an accept that failed (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listening socket that outlives generations. When the last one lets it go, its connections end.
pub(crate) struct Listener {
    address: SocketAddr,
    socket: Mutex<Option<TcpListener>>,
    /// Held by the generation that accepts; the next one waits for it, and connections wait in the socket's queue.
    accepting: tokio::sync::Mutex<()>,
    connections: Arc<Semaphore>,
    stop: watch::Sender<()>,
}

impl Listener {
    /// One that will listen on a loopback address. Nothing is opened yet.
    pub(crate) fn new(address: SocketAddr) -> Listener {
        Listener {
            address,
            socket: Mutex::new(None),
            accepting: tokio::sync::Mutex::new(()),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            stop: watch::Sender::new(()),
        }
    }

    /// Binds the socket where that has not been done, and says where it listens.
    pub(crate) fn bind(&self) -> Result<SocketAddr, String> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = match &*socket {
            Some(socket) => socket.local_addr(),
            None => TcpListener::bind(self.address).and_then(|new| {
                new.set_nonblocking(true)?;
                let address = new.local_addr()?;
                tracing::info!("etcd: the embedded store's API is at http://{address}");
                *socket = Some(new);
                Ok(address)
            }),
        };
        bound.map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "; if an etcd runs there name it with `endpoint` instead of `embedded`, otherwise write `listen` with another port, or `listen off`"
                }
                _ => "; write `listen` with another address, or `listen off`",
            };
            format!(
                "cannot listen on {} for the embedded store's API: {error}{advice}",
                self.address
            )
        })
    }

    /// Serves the API until it is dropped; connections go on then.
    pub(crate) async fn serve(&self, store: &Store) {
        let _turn = self.accepting.lock().await;
        let socket = {
            let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            socket.as_ref().map(TcpListener::try_clone)
        };
        let listener = match socket {
            Some(Ok(socket)) => tokio::net::TcpListener::from_std(socket),
            Some(Err(error)) => Err(error),
            None => return,
        };
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("embedded store: its API is off: {error}");
                return;
            }
        };
        let url = match listener.local_addr() {
            Ok(address) => format!("http://{address}"),
            Err(_) => format!("http://{}", self.address),
        };
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            match Arc::clone(&self.connections).try_acquire_owned() {
                Ok(permit) => {
                    let api = Api {
                        store: store.clone(),
                        url: url.clone(),
                        stop: self.stop.subscribe(),
                    };
                    tokio::spawn(connection(stream, api, permit));
                }
                Err(_) => turn_away(stream).await,
            }
        }
    }
}

async fn connection(stream: TcpStream, api: Api, _permit: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true);
    let mut stop = api.stop.clone();
    let service = service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// One line for who comes when all places are taken; what does not fit into the socket at once is left out.
async fn turn_away(mut stream: TcpStream) {
    let refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 46\r\n\r\ntoo many connections to the embedded store's A";
    let _ = tokio::time::timeout(
        Duration::from_millis(100),
        stream.write_all(refusal.as_bytes()),
    )
    .await;
}
